# shellcheck shell=bash
# Sourced after aws.sh: the container as a task of ECS on Fargate.

# what whoever runs it may have to do, as docs/aws.md says
PERMISSIONS=(s3:ListBucket s3:PutObject s3:GetObject cloudformation:DescribeStacks ecs:RunTask ecs:DescribeTasks
  ecs:ListTasks ecs:StopTask logs:GetLogEvents iam:PassRole)
CALL=() TASK='' CLUSTER='' LOG_GROUP='' LOG_TOKEN='' STARTS=''

# plan ARGUMENT...: sets CALL, of aws, and where the task and its log can be found.
plan() {
  local outputs network
  outputs=$(stack_outputs "$STACK_NAME-fargate")
  network=$(stack_outputs "$STACK_NAME-network")
  [[ -n $outputs && -n $network ]] || die 1 'the ECS cluster is not there; create_docker_resources.sh makes it'
  CLUSTER=$(value_of "$outputs" Cluster)
  LOG_GROUP=$(value_of "$outputs" LogGroup)
  CALL=(ecs run-task --cluster "$CLUSTER" --task-definition "$(value_of "$outputs" Task)" --launch-type FARGATE
  --started-by "$RUN_ID" --client-token "$RUN_ID" --network-configuration
  "awsvpcConfiguration={subnets=[$(value_of "$network" Subnets)],securityGroups=[$(value_of "$network" \
    TaskSecurityGroup)],assignPublicIp=ENABLED}" --overrides "$(overrides "$@")")
}

# overrides ARGUMENT...
overrides() {
  request <<JSON
{
  "containerOverrides": [
    {"name": "movielens_pipeline", "command": $(json_list "$@")}
  ]
}
JSON
}

# show_plan
show_plan() {
  print_call "${CALL[@]}"
  print_call ecs describe-tasks --cluster "$CLUSTER" --tasks TASK
  print_call logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name task/movielens_pipeline/TASK
}

# start: starts the task and sets TASK.
start() {
  local answer reason
  STARTS=maybe
  answer=$(ask_to_start "${CALL[@]}" --query '[tasks[0].taskArn,failures[0].reason]') || {
    (($? == UNANSWERED)) || STARTS=''
    exit 1
  }
  IFS=$'\t' read -r TASK reason <<<"$answer"
  if [[ $TASK == None ]]; then
    TASK='' STARTS=''
    die 1 "the task could not be started: $reason"
  fi
  WHAT="task ${TASK##*/}"
  say "$WHAT"
  stop_where_asked
}

# look: at the task, and at its log as it comes.
# shellcheck disable=SC2034 # what it sets is for `follow`
look() {
  local state
  state=$(ask ecs describe-tasks --cluster "$CLUSTER" --tasks "$TASK" --query 'tasks[0].lastStatus')
  STATE="task $state"
  [[ $state != STOPPED ]] || ENDED=$state
  show_new_log
}

# show_new_log: prints what the log has got since the last call; a log that is not there yet is an empty one.
show_new_log() {
  local answer call=(logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name
    "task/movielens_pipeline/${TASK##*/}" --start-from-head --no-paginate)
  [[ -z $LOG_TOKEN ]] || call+=(--next-token "$LOG_TOKEN")
  answer=$(call_aws --output text "${call[@]}" --query '[nextForwardToken,events[].[message]]' 2>/dev/null) || return 0
  LOG_TOKEN=${answer%%$'\n'*}
  [[ $answer != *$'\n'* ]] || say "${answer#*$'\n'}"
}

# end_as_it_ended: says what was used, and ends with the exit status of the container.
end_as_it_ended() {
  local answer status reason begun ended
  show_new_log
  # the reason may be empty, so it is last
  answer=$(ask ecs describe-tasks --cluster "$CLUSTER" --tasks "$TASK" \
    --query 'tasks[0].[containers[0].exitCode,pullStartedAt,stoppedAt,stoppedReason]')
  IFS=$'\t' read -r status begun ended reason <<<"$answer"
  say_what_the_task_used "$begun" "$ended"
  if [[ $status == None ]]; then
    die 1 "the container did not run to its end: ${reason:-for no reason that is given}"
  fi
  exit "$status"
}

# check_way ROOT: what a task needs besides.
check_way() {
  local outputs part definition image architecture role
  for part in storage network registry fargate; do
    check_stack "$1" "$part" create_docker_resources.sh
  done
  outputs=$(stack_outputs "$STACK_NAME-fargate" 2>/dev/null) || true
  definition=$(value_of "$outputs" Task)
  if [[ -n $definition ]]; then
    if see ecs describe-task-definition --task-definition "$definition" --query \
      'taskDefinition.[containerDefinitions[0].image,runtimePlatform.cpuArchitecture,taskRoleArn]'; then
      IFS=$'\t' read -r image architecture role <<<"$SEEN"
      check_image "${image##*@}" "$architecture"
      check_role "${role##*/}" 'create_docker_resources.sh makes it'
      # shellcheck disable=SC2034 # it is for resource_of
      PASSED_ROLE=$role
      check_permissions ecs-tasks.amazonaws.com "${PERMISSIONS[@]}"
    else
      unseen task
    fi
  fi
  check_quota fargate L-3032A538 2 'on Fargate'
}

# check_image DIGEST ARCHITECTURE: whether the image is in the registry, for the architecture that the task has.
check_image() {
  local architecture
  if ! see ecr describe-images --repository-name "$STACK_NAME" --image-ids "imageDigest=$1" \
    --query 'imageDetails[0].imageTags'; then
    [[ $SEEN != *ImageNotFound* ]] || SEEN="$1 is not in the registry; create_docker_resources.sh pushes one"
    unseen image
    return
  fi
  architecture=$(tr '[:lower:]' '[:upper:]' <<<"${SEEN##*-}")
  if [[ $architecture == "$2" ]]; then
    mark ok image "${SEEN%-*}, $2"
  else
    mark no image "${SEEN%-*} is for $architecture, and the task for $2; create_docker_resources.sh mends it"
  fi
}

# estimate
estimate() {
  say "2 vCPU and 8 GB at $(price_of_an_hour) USD an hour: $(cost_of 60 "$(price_of_an_hour)") USD for a minute, which \
is the least, at most $(cost_of "$TIME_LIMIT" "$(price_of_an_hour)") USD in $FARGATE_TIME_LIMIT"
}

# say_what_the_task_used BEGUN ENDED: vCPU-hours and GB-hours, from the pull of the image until the end.
say_what_the_task_used() {
  [[ $1 != None && $2 != None ]] || return 0
  local seconds
  seconds=$(($(seconds_of "$2") - $(seconds_of "$1")))
  say "used: $(cost_of "$seconds" 2) vCPU-hours and $(cost_of "$seconds" 8) GB-hours, some \
$(cost_of "$((seconds > 60 ? seconds : 60))" "$(price_of_an_hour)") USD"
}

# price_of_an_hour: prints what the task costs in an hour, in USD.
price_of_an_hour() {
  awk -v vcpu="${FARGATE_PRICE_PER_VCPU_HOUR:-0.04048}" -v memory="${FARGATE_PRICE_PER_GB_HOUR:-0.004445}" \
    'BEGIN { printf "%.5f", 2 * vcpu + 8 * memory }'
}

# clean_up: stops whatever of this run has not stopped.
clean_up() {
  local tasks=$TASK task status=0
  [[ -z $ENDED ]] || return 0
  [[ -n $tasks ]] || tasks=$(ask ecs list-tasks --cluster "$CLUSTER" --started-by "$RUN_ID" --query taskArns) ||
    STARTS=unknown
  # AWS may start it after this, where it has not answered
  if [[ -z $tasks && -n $STARTS ]]; then
    say_left "a task of cluster $CLUSTER, started by $RUN_ID" "$(price_of_an_hour)" "aws ecs list-tasks --cluster $CLUSTER \
--started-by $RUN_ID finds its id for aws ecs stop-task --cluster $CLUSTER --task ID"
    return 1
  fi
  for task in $tasks; do
    if (ask ecs stop-task --cluster "$CLUSTER" --task "$task" --reason 'run_docker_fargate.sh ended' >/dev/null); then
      say "task ${task##*/} is stopped"
    else
      say_left "task ${task##*/}" "$(price_of_an_hour)" "aws ecs stop-task --cluster $CLUSTER --task ${task##*/}"
      status=1
    fi
  done
  return "$status"
}
