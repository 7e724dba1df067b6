#!/usr/bin/env bash
# Usage: run_docker_fargate.sh [--upload_dataset] [--dry_run] [--input_path PATH] [--output_path PATH] [...]
# Summary: Runs the container on ECS Fargate, from a bucket to a bucket, follows its log and waits for its end.
#
# create_docker_resources.sh makes what it needs, once. Without arguments the job reads s3://$S3_BUCKET_NAME/dataset
# and publishes to s3://$S3_BUCKET_NAME/output; arguments go to the job, and yours override these.
#
#   --upload_dataset   first uploads the bundled dataset/, where the bucket has none
#   --dry_run          prints the calls that it would make, and changes nothing
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME       the bucket; required
#   AWS_DEFAULT_REGION   its region
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#   FARGATE_TIME_LIMIT   after which time it stops the task: 90s, 30m or 2h (2h)
#   FARGATE_PRICE_PER_VCPU_HOUR, FARGATE_PRICE_PER_GB_HOUR
#                        for the estimates, in USD; look them up for your region (0.04048, 0.004445)
#   POLL_SECONDS         how often it looks (10)
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#
# Exit status: the container's; 1 when AWS refuses something or the task could not run, 2 for wrong usage, 124 at the
# time limit, 129, 130 or 143 when a signal ended it.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  # shellcheck source=scripts/aws.sh
  source "$root/scripts/aws.sh"
  help_if_asked "$@"
  FARGATE_TIME_LIMIT=${FARGATE_TIME_LIMIT:-2h}
  TASK='' TASK_NAME=$(date -u +%Y%m%dT%H%M%SZ)-$$-$RANDOM CLUSTER='' LOG_GROUP='' LOG_TOKEN=''
  take_flags DRY_RUN UPLOAD_DATASET -- "$@"
  TIME_LIMIT=$(seconds_in FARGATE_TIME_LIMIT)
  use_aws_cli "$root"
  require_bucket_there
  [[ -z $UPLOAD_DATASET ]] || upload_dataset "$(python_with_boto3 "$root")" "$root/scripts/upload_dataset.py"
  local call=()
  make_task_call --input_path "s3://$S3_BUCKET_NAME/dataset" --output_path "s3://$S3_BUCKET_NAME/output" \
    ${OTHERS[@]+"${OTHERS[@]}"}
  say_what_a_task_may_cost
  if [[ -n $DRY_RUN ]]; then
    print_call "${call[@]}"
    print_call ecs describe-tasks --cluster "$CLUSTER" --tasks TASK
    print_call logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name task/movielens_pipeline/TASK
    return
  fi
  end_by stop_task
  start_task "${call[@]}"
  follow_task
  end_as_the_task
}

# make_task_call ARGUMENT...: sets call, of aws, and CLUSTER and LOG_GROUP.
make_task_call() {
  local outputs network
  outputs=$(stack_outputs "$STACK_NAME-fargate")
  network=$(stack_outputs "$STACK_NAME-network")
  [[ -n $outputs && -n $network ]] || die 1 'the ECS cluster is not there; create_docker_resources.sh makes it'
  CLUSTER=$(value_of "$outputs" Cluster)
  LOG_GROUP=$(value_of "$outputs" LogGroup)
  call=(ecs run-task --cluster "$CLUSTER" --task-definition "$(value_of "$outputs" Task)" --launch-type FARGATE
  --started-by "$TASK_NAME" --client-token "$TASK_NAME" --network-configuration
  "awsvpcConfiguration={subnets=[$(value_of "$network" Subnets)],securityGroups=[$(value_of "$network" \
    TaskSecurityGroup)],assignPublicIp=ENABLED}"
  --overrides "{\"containerOverrides\":[{\"name\":\"movielens_pipeline\",\"command\":$(json_list "$@")}]}")
}

# start_task CALL...: starts the task and sets TASK.
start_task() {
  local answer reason
  answer=$(ask_whole "$@" --query '[tasks[0].taskArn,failures[0].reason]')
  IFS=$'\t' read -r TASK reason <<<"$answer"
  [[ $TASK != None ]] || die 1 "the task could not be started: $reason"
  say "task ${TASK##*/}"
  stop_where_asked
}

# follow_task: shows the states of the task, and its log as it comes, until it has stopped.
follow_task() {
  local state shown=''
  while :; do
    state=$(ask ecs describe-tasks --cluster "$CLUSTER" --tasks "$TASK" --query 'tasks[0].lastStatus')
    stop_where_asked
    if [[ $state != "$shown" ]]; then
      shown=$state
      say "$(printf '%5d s  task %s' "$SECONDS" "$state")"
    fi
    show_new_log
    [[ $state != STOPPED ]] || break
    ((SECONDS < TIME_LIMIT)) || die 124 "task ${TASK##*/} has not stopped in $SECONDS seconds; it is stopped"
    pause "$POLL_SECONDS"
  done
  show_new_log
}

# show_new_log: prints what the log has got since the last call; a log that is not there yet is an empty one.
show_new_log() {
  local answer call=(logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name
    "task/movielens_pipeline/${TASK##*/}" --start-from-head --no-paginate)
  [[ -z $LOG_TOKEN ]] || call+=(--next-token "$LOG_TOKEN")
  answer=$(aws --output text "${call[@]}" --query '[nextForwardToken,events[].[message]]' 2>/dev/null) || return 0
  LOG_TOKEN=${answer%%$'\n'*}
  [[ $answer != *$'\n'* ]] || say "${answer#*$'\n'}"
}

# end_as_the_task: says what was used, and ends with the exit status of the container.
end_as_the_task() {
  local status reason begun ended
  IFS=$'\t' read -r status reason begun ended < <(ask ecs describe-tasks --cluster "$CLUSTER" --tasks "$TASK" \
    --query 'tasks[0].[containers[0].exitCode,stoppedReason,pullStartedAt,stoppedAt]')
  say_what_the_task_used "$begun" "$ended"
  if [[ $status == None ]]; then
    die 1 "the container did not run to its end: $reason"
  fi
  exit "$status"
}

# say_what_a_task_may_cost
say_what_a_task_may_cost() {
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

# stop_task: whatever of this run has not stopped, even where its start was interrupted.
stop_task() {
  local task
  for task in $(ask ecs list-tasks --cluster "$CLUSTER" --started-by "$TASK_NAME" --query 'taskArns'); do
    ask ecs stop-task --cluster "$CLUSTER" --task "$task" --reason 'run_docker_fargate.sh ended' >/dev/null
    say "task ${task##*/} is stopped"
  done
}

main "$@"
