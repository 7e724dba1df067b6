# shellcheck shell=bash
# Sourced by exec_EMR_compute_s3_storage.sh: the job as the one step of an EMR cluster that ends with it.

EMR_INSTANCE_TYPES=${EMR_INSTANCE_TYPES:-m7g.xlarge m6g.xlarge m6gd.xlarge r6g.xlarge}
EMR_CORE_INSTANCES=${EMR_CORE_INSTANCES:-2}
EMR_PRICE_PER_INSTANCE_HOUR=${EMR_PRICE_PER_INSTANCE_HOUR:-0.20}
CLUSTER_ID='' CLUSTER_NAME=''

# run_on_cluster ARGUMENT...: runs the job and ends with its exit status.
run_on_cluster() {
  local call=()
  require_number EMR_CORE_INSTANCES
  CLUSTER_NAME=$STACK_NAME-$RUN_ID
  make_cluster_call "$@"
  say_what_a_cluster_may_cost
  if [[ -n $DRY_RUN ]]; then
    print_call "${call[@]}"
    print_call emr describe-cluster --cluster-id CLUSTER_ID
    print_call emr list-steps --cluster-id CLUSTER_ID
    print_call s3 cp "s3://$S3_BUCKET_NAME/logs/CLUSTER_ID/steps/STEP_ID/stdout.gz" -
    return
  fi
  end_by terminate_cluster
  start_cluster "${call[@]}"
  follow_cluster
  end_as_the_step
}

# make_cluster_call ARGUMENT...: sets call, of aws.
make_cluster_call() {
  local roles network group attributes types configs='' type fleets step
  roles=$(stack_outputs "$STACK_NAME-emr")
  network=$(stack_outputs "$STACK_NAME-network")
  [[ -n $roles && -n $network ]] || die 1 "the roles and the network of clusters are not there; \
create_role_emr_serverless.sh makes them"
  group=$(value_of "$network" ClusterSecurityGroup)
  attributes="InstanceProfile=$(value_of "$roles" InstanceProfile),SubnetIds=[$(value_of "$network" Subnets)]"
  attributes+=",EmrManagedMasterSecurityGroup=$group,EmrManagedSlaveSecurityGroup=$group"
  [[ -z ${KEY_NAME:-} ]] || attributes+=",KeyName=$KEY_NAME"
  read -ra types <<<"$EMR_INSTANCE_TYPES"
  for type in "${types[@]}"; do
    configs+=",{\"InstanceType\":\"$type\",\"WeightedCapacity\":1}"
  done
  configs="[${configs#,}]"
  fleets="[{\"Name\":\"primary\",\"InstanceFleetType\":\"MASTER\",\"TargetOnDemandCapacity\":1,\
\"InstanceTypeConfigs\":$configs},{\"Name\":\"core\",\"InstanceFleetType\":\"CORE\",\
\"TargetSpotCapacity\":$EMR_CORE_INSTANCES,\"InstanceTypeConfigs\":$configs,\"LaunchSpecifications\":{\
\"SpotSpecification\":{\"AllocationStrategy\":\"price-capacity-optimized\",\"TimeoutDurationMinutes\":10,\
\"TimeoutAction\":\"SWITCH_TO_ON_DEMAND\"},\"OnDemandSpecification\":{\"AllocationStrategy\":\"lowest-price\"}}}]"
  # the time limit holds on the cluster itself, so that it ends even when nobody looks after it
  # shellcheck disable=SC2016 # for the cluster's shell
  step=$(json_list bash -c \
    'timeout --kill-after=60 "$@"; status=$?; echo "exit status of the job: $status"; exit $status' \
    step "$EMR_TIME_LIMIT" spark-submit --deploy-mode client --py-files "$PACKAGE" "$JOB" "$@")
  call=(emr create-cluster --name "$CLUSTER_NAME" --release-label "$EMR_RELEASE_LABEL" --applications Name=Spark
    --log-uri "s3://$S3_BUCKET_NAME/logs/" --service-role "$(value_of "$roles" ServiceRole)"
    --security-configuration "$(value_of "$roles" SecurityConfiguration)" --ec2-attributes "$attributes"
    --instance-fleets "$fleets" --auto-terminate --tags "application=$STACK_NAME"
    for-use-with-amazon-emr-managed-policies=true
    --steps "[{\"Type\":\"CUSTOM_JAR\",\"Name\":\"movielens_pipeline\",\"ActionOnFailure\":\"TERMINATE_CLUSTER\",\
\"Jar\":\"command-runner.jar\",\"Args\":$step}]")
}

# start_cluster CALL...: starts the cluster and sets CLUSTER_ID. It is asked for once, since a second request would start
# a second one; where the answer is lost, the cluster is known by its name.
start_cluster() {
  CLUSTER_ID=$(AWS_MAX_ATTEMPTS=1 ask_whole "$@" --query ClusterId) || CLUSTER_ID=$(clusters_by_name)
  [[ -n $CLUSTER_ID ]] || exit 1
  say "cluster $CLUSTER_ID, $EMR_RELEASE_LABEL"
  stop_where_asked
}

# clusters_by_name: prints the clusters of this run that have not ended.
clusters_by_name() {
  ask emr list-clusters --active --query "Clusters[?Name=='$CLUSTER_NAME'].Id"
}

# follow_cluster: shows the states of cluster and step until the cluster has ended.
follow_cluster() {
  local state reason step shown=''
  while :; do
    IFS=$'\t' read -r state reason < <(ask emr describe-cluster --cluster-id "$CLUSTER_ID" \
      --query 'Cluster.Status.[State,StateChangeReason.Message]')
    step=$(ask emr list-steps --cluster-id "$CLUSTER_ID" --query 'Steps[0].Status.State')
    stop_where_asked
    if [[ "$state, step $step" != "$shown" ]]; then
      shown="$state, step $step"
      say "$(printf '%5d s  cluster %s' "$SECONDS" "$shown")"
    fi
    [[ ${state:-} != TERMINATED* ]] || break
    ((SECONDS < DEADLINE)) || die 124 "cluster $CLUSTER_ID has not ended in $SECONDS seconds; it is terminated"
    pause "$POLL_SECONDS"
  done
  [[ $state == TERMINATED ]] || say "cluster $CLUSTER_ID ended: ${reason:-for no reason that it gives}"
}

# end_as_the_step: shows the driver's log and what was used, and ends with the exit status of the job.
end_as_the_step() {
  local step_id step_state log status
  IFS=$'\t' read -r step_id step_state < <(ask emr list-steps --cluster-id "$CLUSTER_ID" \
    --query 'Steps[0].[Id,Status.State]')
  log=s3://$S3_BUCKET_NAME/logs/$CLUSTER_ID/steps/$step_id
  [[ $step_state == CANCELLED ]] || in_time "$LOG_SECONDS" fetch_log "$log/stdout.gz" || say "no log at $log/stdout.gz"
  status=$(sed -n 's/^exit status of the job: \([0-9]*\)$/\1/p' <<<"$LOG")
  sed '/^exit status of the job: [0-9]*$/d' <<<"$LOG" >&2
  say_what_the_cluster_used
  [[ $step_state == COMPLETED ]] && exit 0
  say "step $step_id $step_state; more of its log: aws s3 cp $log/stderr.gz - | gunzip"
  exit "${status:-1}"
}

# say_what_a_cluster_may_cost
say_what_a_cluster_may_cost() {
  local instances=$((EMR_CORE_INSTANCES + 1))
  say "$instances instances at $EMR_PRICE_PER_INSTANCE_HOUR USD an hour: some \
$(cost_of $((instances * 900)) "$EMR_PRICE_PER_INSTANCE_HOUR") USD for a quarter of an hour, at most \
$(cost_of $((instances * DEADLINE)) "$EMR_PRICE_PER_INSTANCE_HOUR") USD, at the deadline of $DEADLINE s"
}

# say_what_the_cluster_used: instance-hours, from when each instance was asked for until it ended.
say_what_the_cluster_used() {
  local begun ended seconds=0 instances=0
  while IFS=$'\t' read -r begun ended; do
    [[ -n $begun && -n $ended && $ended != None ]] || continue
    instances=$((instances + 1))
    seconds=$((seconds + $(seconds_of "$ended") - $(seconds_of "$begun")))
  done < <(ask emr list-instances --cluster-id "$CLUSTER_ID" \
    --query 'Instances[].Status.Timeline.[CreationDateTime,EndDateTime]')
  say "used: $(cost_of "$seconds" 1) instance-hours by $instances instances, some \
$(cost_of "$seconds" "$EMR_PRICE_PER_INSTANCE_HOUR") USD"
}

# terminate_cluster: whatever of this run has not ended, even where its start was interrupted.
terminate_cluster() {
  local clusters id
  clusters=$(clusters_by_name)
  for id in $clusters; do
    ask emr terminate-clusters --cluster-ids "$id"
    say "cluster $id is terminated"
  done
}
