# shellcheck shell=bash
# Sourced after aws.sh: the job on EMR Serverless.

EMR_MAX_VCPU=${EMR_MAX_VCPU:-16}
EMR_PRICE_PER_VCPU_HOUR=${EMR_PRICE_PER_VCPU_HOUR:-0.042094}
EMR_PRICE_PER_GB_HOUR=${EMR_PRICE_PER_GB_HOUR:-0.004628}
CREATE=() CALL=() APPLICATION_ID='' APPLICATION_NAME='' JOB_RUN_ID=''

# plan ARGUMENT...: sets CREATE and CALL, of aws, and the name by which the application can be found.
plan() {
  local role=${IAM_ROLE_ARN:-} outputs
  require_number EMR_MAX_VCPU
  ((TIME_LIMIT >= 300)) || die 2 'EMR Serverless wants a time limit of at least 5m'
  if [[ -z $role ]]; then
    outputs=$(stack_outputs "$STACK_NAME-emr")
    role=$(value_of "$outputs" ServerlessJobRole)
  fi
  [[ -n $role ]] || die 1 "the role of serverless jobs is not there; create_role_emr_serverless.sh makes it, \
or set IAM_ROLE_ARN"
  APPLICATION_NAME=$STACK_NAME-$RUN_ID
  [[ -z $KEEP ]] || APPLICATION_NAME=$STACK_NAME-$EMR_RELEASE_LABEL
  # shellcheck disable=SC2054 # the commas are the command line's
  CREATE=(emr-serverless create-application --name "$APPLICATION_NAME" --type SPARK --architecture ARM64
    --release-label "$EMR_RELEASE_LABEL" --auto-stop-configuration enabled=true,idleTimeoutMinutes=5
    --maximum-capacity "cpu=$EMR_MAX_VCPU vCPU,memory=$((EMR_MAX_VCPU * 4)) GB,disk=$((EMR_MAX_VCPU * 10)) GB"
    --tags "application=$STACK_NAME")
  CALL=(emr-serverless start-job-run --name "$STACK_NAME-$RUN_ID" --execution-role-arn "$role"
    --execution-timeout-minutes $(((TIME_LIMIT + 59) / 60)) --tags "application=$STACK_NAME"
    --job-driver "$(job_driver "$@")" --configuration-overrides "$(where_logs_go)")
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
  print_call s3 cp "s3://$S3_BUCKET_NAME/logs/applications/APPLICATION_ID/jobs/JOB_RUN_ID/SPARK_DRIVER/stdout.gz" -
  [[ -z $KEEP ]] || return 0
  print_call emr-serverless stop-application --application-id APPLICATION_ID
  print_call emr-serverless delete-application --application-id APPLICATION_ID
}

# start: starts the job run, and before it the application where there is none.
start() {
  start_application
  JOB_RUN_ID=$(ask_whole "${CALL[@]}" --application-id "$APPLICATION_ID" --query jobRunId)
  WHAT="job run $JOB_RUN_ID"
  say "$WHAT"
}

# start_application: sets APPLICATION_ID, of one that is kept where there is one, and waits until it takes jobs.
start_application() {
  APPLICATION_ID=$(applications_by_name)
  if [[ -z $APPLICATION_ID ]]; then
    APPLICATION_ID=$(ask_whole "${CREATE[@]}" --query applicationId)
    say "application $APPLICATION_ID, $EMR_RELEASE_LABEL"
  else
    say "application $APPLICATION_ID, kept by an earlier run"
  fi
  stop_where_asked
  in_time 600 application_is CREATED STARTED STOPPED || die 1 "application $APPLICATION_ID does not become ready"
}

# applications_by_name: prints the application of this run's name, unless it is deleted.
applications_by_name() {
  ask emr-serverless list-applications --states CREATING CREATED STARTING STARTED STOPPING STOPPED \
    --query "applications[?name=='$APPLICATION_NAME'].id"
}

# application_is STATE...: whether the application is in one of the states.
application_is() {
  local state
  state=$(ask emr-serverless get-application --application-id "$APPLICATION_ID" --query application.state) || exit
  [[ " $* " == *" $state "* ]]
}

# look: at the job run.
# shellcheck disable=SC2034 # what it sets is for `follow`
look() {
  local state
  state=$(ask emr-serverless get-job-run --application-id "$APPLICATION_ID" --job-run-id "$JOB_RUN_ID" \
    --query jobRun.state)
  STATE="job run $state"
  [[ $state != SUCCESS && $state != FAILED && $state != CANCELLED ]] || ENDED=$state
}

# end_as_it_ended: shows the driver's log and what was used, and ends with the exit status of the job.
end_as_it_ended() {
  local state details vcpu memory log
  log=s3://$S3_BUCKET_NAME/logs/applications/$APPLICATION_ID/jobs/$JOB_RUN_ID/SPARK_DRIVER
  wait_for_log "$log"
  say "$LOG"
  IFS=$'\t' read -r state details vcpu memory < <(ask emr-serverless get-job-run --application-id "$APPLICATION_ID" \
    --job-run-id "$JOB_RUN_ID" --query 'jobRun.[state,stateDetails,billedResourceUtilization.vCPUHour,billedResourceUtilization.memoryGBHour]')
  say "used: $vcpu vCPU-hours and $memory GB-hours, some $(awk -v vcpu="$vcpu" -v memory="$memory" \
    -v price="$EMR_PRICE_PER_VCPU_HOUR" -v memory_price="$EMR_PRICE_PER_GB_HOUR" \
    'BEGIN { printf "%.4f", vcpu * price + memory * memory_price }') USD"
  [[ $state == SUCCESS ]] && exit 0
  say "job run $JOB_RUN_ID $state: $details"
  say "$(more_of "$log")"
  [[ $details =~ [Ee]xit\ ?[Cc]ode:?\ *([0-9]+) ]] && exit "${BASH_REMATCH[1]}"
  [[ $details == *[Tt]imeout* || $details == *'timed out'* ]] && exit 124
  exit 1
}

# estimate
estimate() {
  local hour
  hour=$(awk -v vcpu="$EMR_MAX_VCPU" -v price="$EMR_PRICE_PER_VCPU_HOUR" -v memory_price="$EMR_PRICE_PER_GB_HOUR" \
    'BEGIN { printf "%.6f", vcpu * (price + 4 * memory_price) }')
  say "up to $EMR_MAX_VCPU vCPU with 4 GB each, at $EMR_PRICE_PER_VCPU_HOUR USD a vCPU-hour and $EMR_PRICE_PER_GB_HOUR \
USD a GB-hour: up to $(cost_of 300 "$hour") USD for five minutes, at most $(cost_of "$DEADLINE" "$hour") USD, at the \
deadline of $DEADLINE s"
}

# clean_up: cancels what still runs; stops and deletes the application unless it is to be kept.
clean_up() {
  [[ -n $APPLICATION_ID ]] || APPLICATION_ID=$(applications_by_name)
  [[ -n $APPLICATION_ID ]] || return 0
  cancel_job_runs
  if [[ -n $KEEP ]]; then
    say "application $APPLICATION_ID is kept; it stops by itself after five idle minutes and costs nothing then"
    return
  fi
  application_is CREATED STOPPED || ask emr-serverless stop-application --application-id "$APPLICATION_ID"
  in_time 600 application_is CREATED STOPPED || die 1 "application $APPLICATION_ID does not stop"
  ask emr-serverless delete-application --application-id "$APPLICATION_ID"
  say "application $APPLICATION_ID is deleted"
}

# cancel_job_runs: cancels this run's job run, even where its start was interrupted, and waits until it has ended.
cancel_job_runs() {
  local id
  for id in $(unfinished_job_runs); do
    ask emr-serverless cancel-job-run --application-id "$APPLICATION_ID" --job-run-id "$id" >/dev/null
    say "job run $id is cancelled"
  done
  in_time 600 no_job_run_is_left || die 1 "job runs of application $APPLICATION_ID do not end"
}

# unfinished_job_runs: prints those of this run.
unfinished_job_runs() {
  ask emr-serverless list-job-runs --application-id "$APPLICATION_ID" \
    --states SUBMITTED PENDING SCHEDULED RUNNING QUEUED --query "jobRuns[?name=='$STACK_NAME-$RUN_ID'].id"
}

# no_job_run_is_left
no_job_run_is_left() {
  [[ -z $(ask emr-serverless list-job-runs --application-id "$APPLICATION_ID" \
    --states SUBMITTED PENDING SCHEDULED RUNNING QUEUED CANCELLING \
    --query "jobRuns[?name=='$STACK_NAME-$RUN_ID'].id") ]]
}
