# shellcheck shell=bash
# Sourced after aws.sh: the job on EMR Serverless.

EMR_MAX_VCPU=${EMR_MAX_VCPU:-16}
EMR_PRICE_PER_VCPU_HOUR=${EMR_PRICE_PER_VCPU_HOUR:-0.042094}
EMR_PRICE_PER_GB_HOUR=${EMR_PRICE_PER_GB_HOUR:-0.004628}
# what whoever runs it may have to do, as docs/aws.md says
PERMISSIONS=(s3:ListBucket s3:PutObject s3:GetObject cloudformation:DescribeStacks emr-serverless:CreateApplication
  emr-serverless:TagResource emr-serverless:GetApplication emr-serverless:ListApplications
  emr-serverless:UpdateApplication emr-serverless:StartJobRun emr-serverless:GetJobRun emr-serverless:ListJobRuns
  emr-serverless:CancelJobRun emr-serverless:StopApplication emr-serverless:DeleteApplication iam:PassRole)
CREATE=() CALL=() APPLICATION_ID='' APPLICATION_NAME='' JOB_RUN_ID='' STARTS=''

# plan ARGUMENT...: sets CREATE and CALL, of aws, and the name by which the application can be found.
plan() {
  local role=${IAM_ROLE_ARN:-} outputs
  require_number EMR_MAX_VCPU
  require_time_of_serverless
  if [[ -z $role ]]; then
    outputs=$(stack_outputs "$STACK_NAME-emr")
    role=$(value_of "$outputs" ServerlessJobRole)
  fi
  [[ -n $role ]] || die 1 "the role of serverless jobs is not there; create_role_emr_serverless.sh makes it, \
or set IAM_ROLE_ARN"
  APPLICATION_NAME=$STACK_NAME-$RUN_ID
  [[ -z $KEEP ]] || APPLICATION_NAME=$STACK_NAME-$EMR_RELEASE_LABEL
  # shellcheck disable=SC2054 # the commas are the command line's
  CREATE=(emr-serverless create-application --name "$APPLICATION_NAME" --client-token "$RUN_ID" --type SPARK --architecture ARM64
    --release-label "$EMR_RELEASE_LABEL" --auto-stop-configuration enabled=true,idleTimeoutMinutes=5
    --maximum-capacity "$(maximum_capacity)"
    --tags "application=$STACK_NAME")
  CALL=(emr-serverless start-job-run --name "$STACK_NAME-$RUN_ID" --client-token "$RUN_ID" --execution-role-arn "$role"
    --execution-timeout-minutes $(((TIME_LIMIT + 59) / 60)) --tags "application=$STACK_NAME"
    --job-driver "$(job_driver "$@")" --configuration-overrides "$(where_logs_go)")
}

# maximum_capacity: prints how far an application may grow.
maximum_capacity() {
  printf 'cpu=%d vCPU,memory=%d GB,disk=%d GB' "$EMR_MAX_VCPU" $((EMR_MAX_VCPU * 4)) $((EMR_MAX_VCPU * 10))
}

# job_driver ARGUMENT...
job_driver() {
  request <<JSON
{
  "sparkSubmit": {
    "entryPoint": $(json_string "$JOB"),
    "sparkSubmitParameters": $(json_string "--py-files $PACKAGE"),
    "entryPointArguments": $(json_list "$@")
  }
}
JSON
}

# where_logs_go
where_logs_go() {
  request <<JSON
{
  "monitoringConfiguration": {
    "s3MonitoringConfiguration": {"logUri": $(json_string "s3://$S3_BUCKET_NAME/logs/")}
  }
}
JSON
}

# show_plan
show_plan() {
  print_call "${CREATE[@]}"
  print_call "${CALL[@]}" --application-id APPLICATION_ID
  print_call emr-serverless get-job-run --application-id APPLICATION_ID --job-run-id JOB_RUN_ID
  print_call s3api get-object --bucket "$S3_BUCKET_NAME" \
    --key logs/applications/APPLICATION_ID/jobs/JOB_RUN_ID/SPARK_DRIVER/stdout.gz FILE
  [[ -z $KEEP ]] || return 0
  print_call emr-serverless stop-application --application-id APPLICATION_ID
  print_call emr-serverless delete-application --application-id APPLICATION_ID
}

# start: starts the job run, and before it the application where there is none.
start() {
  start_application
  STARTS=maybe
  JOB_RUN_ID=$(ask_to_start "${CALL[@]}" --application-id "$APPLICATION_ID" --query jobRunId) || {
    (($? == UNANSWERED)) || STARTS=''
    exit 1
  }
  WHAT="job run $JOB_RUN_ID"
  say "$WHAT"
}

# start_application: sets APPLICATION_ID, of one that is kept where there is one, and waits until it takes jobs.
start_application() {
  APPLICATION_ID=$(application_by_name)
  if [[ -n $APPLICATION_ID ]]; then
    say "application $APPLICATION_ID, kept by an earlier run"
    give_capacity
  else
    APPLICATION_ID=$(ask_whole "${CREATE[@]}" --query applicationId)
    say "application $APPLICATION_ID, $EMR_RELEASE_LABEL"
  fi
  stop_where_asked
  in_time 600 application_is CREATED STARTING STARTED STOPPED ||
    die 1 "application $APPLICATION_ID does not become ready"
}

# application_by_name: prints the application of this run's name that is not deleted; names need not be unique, so the
# first that was made.
application_by_name() {
  local answer first others
  answer=$(ask emr-serverless list-applications --states CREATING CREATED STARTING STARTED STOPPING STOPPED \
    --query "applications[?name=='$APPLICATION_NAME'].[createdAt,id]") || exit
  { read -r _ first && others=$(cut -f 2 | tr '\n' ' '); } < <(sort <<<"$answer") || true
  [[ -z ${others% } ]] || say "others of the name $APPLICATION_NAME are not used: ${others% }; to remove one: \
aws emr-serverless delete-application --application-id ID"
  printf '%s\n' "$first"
}

# give_capacity: has an application that is kept grow as far as this run says, and no further.
give_capacity() {
  local state cpu answer
  answer=$(ask emr-serverless get-application --application-id "$APPLICATION_ID" \
    --query 'application.[state,maximumCapacity.cpu]')
  IFS=$'\t' read -r state cpu <<<"$answer"
  ((${cpu%%[!0-9]*} != EMR_MAX_VCPU)) || return 0
  if [[ $state == START* ]]; then # it must be at rest, and is not while others use it
    ask emr-serverless stop-application --application-id "$APPLICATION_ID"
  fi
  in_time 600 application_is CREATED STOPPED || die 1 "application $APPLICATION_ID does not stop"
  ask emr-serverless update-application --application-id "$APPLICATION_ID" --maximum-capacity "$(maximum_capacity)" \
    >/dev/null
  say "application $APPLICATION_ID may now grow to $EMR_MAX_VCPU vCPU, before to $cpu"
}

# application_state
application_state() {
  ask emr-serverless get-application --application-id "$APPLICATION_ID" --query application.state
}

# application_is STATE...: whether the application is in one of the states.
application_is() {
  local state
  state=$(application_state) || exit
  [[ " $* " == *" $state "* ]]
}

# look: at the job run.
# shellcheck disable=SC2034 # what it sets is for `follow`
look() {
  local state
  state=$(job_run_state "$JOB_RUN_ID")
  STATE="job run $state"
  [[ " $AFTER_ITS_END " != *" $state "* ]] || ENDED=$state
}

# end_as_it_ended: shows the driver's log and what was used, and ends with the exit status of the job.
end_as_it_ended() {
  local answer state seconds vcpu memory details log
  log=s3://$S3_BUCKET_NAME/logs/applications/$APPLICATION_ID/jobs/$JOB_RUN_ID/SPARK_DRIVER
  wait_for_log "$log"
  [[ -z $LOG ]] || say "$LOG"
  # the details may be empty, so they are last
  answer=$(ask emr-serverless get-job-run --application-id "$APPLICATION_ID" --job-run-id "$JOB_RUN_ID" --query \
    'jobRun.[state,totalExecutionDurationSeconds,billedResourceUtilization.vCPUHour,billedResourceUtilization.memoryGBHour,stateDetails]') ||
    answer=$ENDED$'\tNone\tNone\tNone\t' # which state it is in is known
  IFS=$'\t' read -r state seconds vcpu memory details <<<"$answer"
  say_what_the_job_run_used "$vcpu" "$memory"
  [[ $state == SUCCESS ]] && exit 0
  say "job run $JOB_RUN_ID $state: ${details:-for no reason that it gives}"
  say "$(more_of "$log")"
  [[ $details =~ [Ee]xit\ ?[Cc]ode:?\ *([0-9]+) ]] && exit "${BASH_REMATCH[1]}"
  # nobody but EMR Serverless cancels it, when its time is over
  [[ $state == CANCELLED && (! $seconds =~ ^[0-9]+$ || $seconds -ge $TIME_LIMIT) ]] && exit 124
  exit 1
}

# say_what_the_job_run_used VCPU_HOURS GB_HOURS
say_what_the_job_run_used() {
  if [[ $1 == None ]]; then
    say 'what it used is not known yet'
    return
  fi
  say "used: $1 vCPU-hours and $2 GB-hours, some $(awk -v vcpu="$1" -v memory="$2" -v price="$EMR_PRICE_PER_VCPU_HOUR" \
    -v memory_price="$EMR_PRICE_PER_GB_HOUR" 'BEGIN { printf "%.4f", vcpu * price + memory * memory_price }') USD"
}

# check_way ROOT: what EMR Serverless needs besides.
# shellcheck disable=SC2034 # PASSED_ROLE is for resource_of
check_way() {
  local outputs
  require_number EMR_MAX_VCPU
  check_stack "$1" storage create_role_emr_serverless.sh
  check_stack "$1" emr create_role_emr_serverless.sh
  outputs=$(stack_outputs "$STACK_NAME-emr" 2>/dev/null) || true
  PASSED_ROLE=${IAM_ROLE_ARN:-$(value_of "$outputs" ServerlessJobRole)}
  [[ -z $PASSED_ROLE ]] || check_role "${PASSED_ROLE##*/}" 'create_role_emr_serverless.sh makes one'
  check_release
  check_permissions emr-serverless.amazonaws.com "${PERMISSIONS[@]}"
  check_quota emr-serverless L-D05C8A75 "$EMR_MAX_VCPU" 'on EMR Serverless (EMR_MAX_VCPU sets how many a run may take)'
}

# estimate
estimate() {
  local hour
  hour=$(price_of_an_hour)
  say "up to $EMR_MAX_VCPU vCPU with 4 GB each, at $EMR_PRICE_PER_VCPU_HOUR USD a vCPU-hour and $EMR_PRICE_PER_GB_HOUR \
USD a GB-hour: up to $(cost_of 300 "$hour") USD for five minutes, at most $(cost_of "$DEADLINE" "$hour") USD, at the \
deadline of $DEADLINE s"
}

# price_of_an_hour: prints what an hour costs at most, in USD.
price_of_an_hour() {
  awk -v vcpu="$EMR_MAX_VCPU" -v price="$EMR_PRICE_PER_VCPU_HOUR" -v memory_price="$EMR_PRICE_PER_GB_HOUR" \
    'BEGIN { printf "%.6f", vcpu * (price + 4 * memory_price) }'
}

# clean_up: cancels what still runs; stops and deletes the application unless it is to be kept.
clean_up() {
  local price
  price=$(price_of_an_hour)
  if [[ -z $APPLICATION_ID ]] && ! APPLICATION_ID=$(application_by_name); then
    say_left "an application named $APPLICATION_NAME, idle for five minutes before it stops" "$price" \
      "aws emr-serverless list-applications finds its id for aws emr-serverless stop-application --application-id ID"
    return 1
  fi
  [[ -n $APPLICATION_ID ]] || return 0
  if ! (end_job_run); then
    say_left "job run ${JOB_RUN_ID:-of the name $STACK_NAME-$RUN_ID}" "$price" "aws emr-serverless cancel-job-run \
--application-id $APPLICATION_ID --job-run-id ${JOB_RUN_ID:-ID}"
    return 1
  fi
  if [[ -n $KEEP ]]; then
    say "application $APPLICATION_ID is kept; it stops by itself after five idle minutes and costs nothing then"
  elif (remove_application); then
    say "application $APPLICATION_ID is deleted"
  else
    say_left "application $APPLICATION_ID, idle for five minutes before it stops" "$price" \
      "aws emr-serverless stop-application --application-id $APPLICATION_ID"
    return 1
  fi
}

# end_job_run: cancels this run's job run, even where its start was interrupted, and waits until it has ended.
end_job_run() {
  local id=$JOB_RUN_ID state
  [[ -z $ENDED ]] || return 0
  [[ -n $id ]] || id=$(unfinished_job_run) || exit
  if [[ -z $id ]]; then # AWS may start it after this, where it has not answered and the application stays
    [[ -z $STARTS || -z $KEEP ]]
    return
  fi
  state=$(job_run_state "$id" 2>/dev/null) || state=UNKNOWN
  if [[ " $AFTER_ITS_END CANCELLING " != *" $state "* ]]; then
    (ask emr-serverless cancel-job-run --application-id "$APPLICATION_ID" --job-run-id "$id" >/dev/null) ||
      { [[ $state != UNKNOWN ]] && job_run_has_ended "$id"; } || exit
    say "job run $id is cancelled"
  fi
  in_time 600 job_run_has_ended "$id"
}

AFTER_ITS_END='SUCCESS FAILED CANCELLED'

# job_run_state ID
job_run_state() {
  ask emr-serverless get-job-run --application-id "$APPLICATION_ID" --job-run-id "$1" --query jobRun.state
}

# job_run_has_ended ID
job_run_has_ended() {
  local state
  if state=$(job_run_state "$1" 2>/dev/null); then
    [[ " $AFTER_ITS_END " == *" $state "* ]]
  else # the list may answer where the job run itself may not be looked at
    state=$(unfinished_job_run CANCELLING) || exit
    [[ -z $state ]]
  fi
}

# unfinished_job_run [STATE]: prints that of this run, also where it is in the state.
unfinished_job_run() {
  ask emr-serverless list-job-runs --application-id "$APPLICATION_ID" \
    --states SUBMITTED PENDING SCHEDULED RUNNING QUEUED "$@" --query "jobRuns[?name=='$STACK_NAME-$RUN_ID'].id"
}

# remove_application: stops the application where it runs, waits until it is at rest, and deletes it.
remove_application() {
  in_time 600 application_rests || exit
  ask emr-serverless delete-application --application-id "$APPLICATION_ID"
}

# application_rests: whether the application can be deleted; stops it where it can be stopped.
application_rests() {
  local state
  state=$(application_state) || exit
  case $state in
  CREATED | STOPPED) ;;
  STARTING | STARTED)
    (ask emr-serverless stop-application --application-id "$APPLICATION_ID") || application_is STOPPING STOPPED || exit
    return 1
    ;;
  *) return 1 ;;
  esac
}
