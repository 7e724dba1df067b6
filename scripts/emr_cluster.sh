# shellcheck shell=bash
# Sourced after aws.sh: the job as the one step of an EMR cluster that ends with it.

EMR_INSTANCE_TYPES=${EMR_INSTANCE_TYPES:-m7g.xlarge m6g.xlarge m6gd.xlarge r6g.xlarge}
EMR_CORE_INSTANCES=${EMR_CORE_INSTANCES:-2}
EMR_PRICE_PER_INSTANCE_HOUR=${EMR_PRICE_PER_INSTANCE_HOUR:-0.20}
# what whoever runs it may have to do, as docs/aws.md says
PERMISSIONS=(s3:ListBucket s3:PutObject s3:GetObject cloudformation:DescribeStacks elasticmapreduce:RunJobFlow
  elasticmapreduce:AddTags elasticmapreduce:DescribeCluster elasticmapreduce:ListSteps elasticmapreduce:ListInstances
  elasticmapreduce:ListInstanceFleets elasticmapreduce:ListInstanceGroups elasticmapreduce:ListBootstrapActions
  elasticmapreduce:ListClusters elasticmapreduce:TerminateJobFlows iam:PassRole)
CALL=() CLUSTER_ID='' CLUSTER_NAME='' REASON='' STARTS=''

# plan ARGUMENT...: sets CALL, of aws, and the name by which the cluster can be found.
plan() {
  local roles network group attributes types configs='' type
  require_number EMR_CORE_INSTANCES
  CLUSTER_NAME=$STACK_NAME-$RUN_ID
  roles=$(stack_outputs "$STACK_NAME-emr")
  network=$(stack_outputs "$STACK_NAME-network")
  [[ -n $roles && -n $network ]] || die 1 "the roles and the network of clusters are not there; \
create_role_emr_serverless.sh makes them"
  group=$(value_of "$network" ClusterSecurityGroup)
  attributes="InstanceProfile=$(value_of "$roles" InstanceProfile),SubnetIds=[$(value_of "$network" Subnets)]"
  attributes+=",EmrManagedMasterSecurityGroup=$group,EmrManagedSlaveSecurityGroup=$group"
  read -ra types <<<"$EMR_INSTANCE_TYPES"
  for type in "${types[@]}"; do
    configs+=",{\"InstanceType\": $(json_string "$type"), \"WeightedCapacity\": 1}"
  done
  CALL=(emr create-cluster --name "$CLUSTER_NAME" --release-label "$EMR_RELEASE_LABEL" --applications Name=Spark
    --log-uri "s3://$S3_BUCKET_NAME/logs/" --service-role "$(value_of "$roles" ServiceRole)"
    --security-configuration "$(value_of "$roles" SecurityConfiguration)" --ec2-attributes "$attributes"
    --instance-fleets "$(fleets "[${configs#,}]")" --auto-terminate --tags "application=$STACK_NAME"
    for-use-with-amazon-emr-managed-policies=true --steps "$(step "$@")")
}

# fleets CONFIGS: prints what the cluster is made of.
fleets() {
  request <<JSON
[
  {
    "Name": "primary",
    "InstanceFleetType": "MASTER",
    "TargetOnDemandCapacity": 1,
    "InstanceTypeConfigs": $1
  },
  {
    "Name": "core",
    "InstanceFleetType": "CORE",
    "TargetSpotCapacity": $EMR_CORE_INSTANCES,
    "InstanceTypeConfigs": $1,
    "LaunchSpecifications": {
      "SpotSpecification": {
        "AllocationStrategy": "price-capacity-optimized",
        "TimeoutDurationMinutes": 10,
        "TimeoutAction": "SWITCH_TO_ON_DEMAND"
      },
      "OnDemandSpecification": {"AllocationStrategy": "lowest-price"}
    }
  }
]
JSON
}

# step ARGUMENT...: prints the one step. The time limit holds on the cluster itself, so that it ends even when nobody looks
# after it.
step() {
  # shellcheck disable=SC2016 # for the cluster's shell
  local shell='timeout --kill-after=60 "$@"; status=$?; echo "exit status of the job: $status"; exit $status'
  request <<JSON
[
  {
    "Type": "CUSTOM_JAR",
    "Name": "movielens_pipeline",
    "ActionOnFailure": "TERMINATE_CLUSTER",
    "Jar": "command-runner.jar",
    "Args": $(json_list bash -c "$shell" step "$EMR_TIME_LIMIT" spark-submit --deploy-mode client --py-files "$PACKAGE" "$JOB" "$@")
  }
]
JSON
}

# show_plan
show_plan() {
  print_call "${CALL[@]}"
  print_call emr describe-cluster --cluster-id CLUSTER_ID
  print_call emr list-steps --cluster-id CLUSTER_ID
  print_call s3 cp "s3://$S3_BUCKET_NAME/logs/CLUSTER_ID/steps/STEP_ID/stdout.gz" -
}

# start: starts the cluster, and sets CLUSTER_ID. It is asked for once, since a second request would start a second one;
# where the answer is lost, or comes too late, the cluster is known by its name.
start() {
  STARTS=maybe
  CLUSTER_ID=$(AWS_MAX_ATTEMPTS=1 ONCE=yes ask_to_start "${CALL[@]}" --query ClusterId) || {
    (($? == UNANSWERED)) || STARTS=''
    [[ -z $STARTS ]] || in_time "$PATIENCE_SECONDS" find_cluster || true
  }
  [[ -n $CLUSTER_ID ]] || exit 1
  WHAT="cluster $CLUSTER_ID"
  say "$WHAT, $EMR_RELEASE_LABEL"
  stop_where_asked
}

# find_cluster: sets CLUSTER_ID, where there is a cluster of this run.
find_cluster() {
  CLUSTER_ID=$(clusters_by_name) || exit
  [[ -n $CLUSTER_ID ]]
}

# clusters_by_name: prints the clusters of this run that have not ended.
clusters_by_name() {
  ask emr list-clusters --active --query "Clusters[?Name=='$CLUSTER_NAME'].Id"
}

# look: at the cluster and its step.
# shellcheck disable=SC2034 # what it sets is for `follow`
look() {
  local answer state step
  answer=$(ask emr describe-cluster --cluster-id "$CLUSTER_ID" \
    --query 'Cluster.Status.[State,StateChangeReason.Message]')
  IFS=$'\t' read -r state REASON <<<"$answer"
  step=$(ask emr list-steps --cluster-id "$CLUSTER_ID" --query 'Steps[0].Status.State')
  STATE="cluster $state, step $step"
  [[ $state != TERMINATED* ]] || ENDED=$state
}

# end_as_it_ended: shows the driver's log and what was used, and ends with the exit status of the job.
end_as_it_ended() {
  local answer step_id step_state log status
  [[ $ENDED == TERMINATED ]] || say "$WHAT ended: ${REASON:-for no reason that it gives}"
  answer=$(ask emr list-steps --cluster-id "$CLUSTER_ID" --query 'Steps[0].[Id,Status.State]')
  IFS=$'\t' read -r step_id step_state <<<"$answer"
  log=s3://$S3_BUCKET_NAME/logs/$CLUSTER_ID/steps/$step_id
  [[ $step_state == CANCELLED ]] || wait_for_log "$log"
  status=$(sed -n 's/^exit status of the job: \([0-9]*\)$/\1/p' <<<"$LOG")
  sed '/^exit status of the job: [0-9]*$/d' <<<"$LOG" >&2
  say_what_the_cluster_used
  [[ $step_state == COMPLETED ]] && exit 0
  say "step $step_id $step_state; $(more_of "$log")"
  exit "${status:-1}"
}

# check_way ROOT: what a cluster needs besides.
# shellcheck disable=SC2034 # PASSED_ROLE is for resource_of
check_way() {
  local types vcpu=0 each outputs
  require_number EMR_CORE_INSTANCES
  check_stack "$1" storage create_role_emr_serverless.sh
  check_stack "$1" network create_role_emr_serverless.sh
  check_stack "$1" emr create_role_emr_serverless.sh
  outputs=$(stack_outputs "$STACK_NAME-emr" 2>/dev/null) || true
  PASSED_ROLE=$(value_of "$outputs" ServiceRole)
  [[ -z $PASSED_ROLE ]] || check_role "${PASSED_ROLE##*/}" 'create_role_emr_serverless.sh makes it'
  check_role AWSServiceRoleForEC2Spot 'without it there are no spot instances; create_role_emr_serverless.sh makes it'
  check_release
  check_permissions elasticmapreduce.amazonaws.com "${PERMISSIONS[@]}"
  read -ra types <<<"$EMR_INSTANCE_TYPES"
  if ! see ec2 describe-instance-types --instance-types "${types[@]}" --query 'InstanceTypes[].VCpuInfo.DefaultVCpus'; then
    unseen instances
    return
  fi
  for each in $SEEN; do
    ((each <= vcpu)) || vcpu=$each
  done
  mark ok instances "${types[*]}, up to $vcpu vCPU each"
  check_quota ec2 L-1216C47A "$vcpu" 'on demand, where the primary node is'
  check_quota ec2 L-34B43A08 $((EMR_CORE_INSTANCES * vcpu)) 'on spot, where the core nodes are'
}

# estimate
estimate() {
  local instances=$((EMR_CORE_INSTANCES + 1))
  say "$instances instances at $EMR_PRICE_PER_INSTANCE_HOUR USD an hour: some \
$(cost_of $((instances * 900)) "$EMR_PRICE_PER_INSTANCE_HOUR") USD for a quarter of an hour, at most \
$(cost_of $((instances * DEADLINE)) "$EMR_PRICE_PER_INSTANCE_HOUR") USD, at the deadline of $DEADLINE s"
}

# say_what_the_cluster_used: instance-hours, from when each instance was asked for until it ended.
say_what_the_cluster_used() {
  local answer begun ended seconds=0 instances=0
  answer=$(ask emr list-instances --cluster-id "$CLUSTER_ID" \
    --query 'Instances[].Status.Timeline.[CreationDateTime,EndDateTime]') || {
    say 'what it used is not known'
    return 0
  }
  while IFS=$'\t' read -r begun ended; do
    [[ -n $begun && -n $ended && $ended != None ]] || continue
    instances=$((instances + 1))
    seconds=$((seconds + $(seconds_of "$ended") - $(seconds_of "$begun")))
  done <<<"$answer"
  say "used: $(cost_of "$seconds" 1) instance-hours by $instances instances, some \
$(cost_of "$seconds" "$EMR_PRICE_PER_INSTANCE_HOUR") USD"
}

# clean_up: terminates whatever of this run has not ended.
clean_up() {
  local ids=$CLUSTER_ID id price status=0
  [[ -z $ENDED ]] || return 0
  price=$(cost_of $(((EMR_CORE_INSTANCES + 1) * 3600)) "$EMR_PRICE_PER_INSTANCE_HOUR")
  [[ -n $ids ]] || ids=$(clusters_by_name) || STARTS=unknown
  # AWS may start it after this, where it has not answered
  if [[ -z $ids && -n $STARTS ]]; then
    say_left "a cluster named $CLUSTER_NAME" "$price" "aws emr list-clusters --active finds its id for \
aws emr terminate-clusters --cluster-ids ID"
    return 1
  fi
  for id in $ids; do
    if (ask emr terminate-clusters --cluster-ids "$id"); then
      say "cluster $id is terminated"
    else
      say_left "cluster $id" "$price" "aws emr terminate-clusters --cluster-ids $id"
      status=1
    fi
  done
  return "$status"
}
