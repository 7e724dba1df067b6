#!/usr/bin/env bash
# Usage: create_schedule.sh [--serverless] EXPRESSION [...]
# Summary: Has the container run on ECS Fargate by a schedule, each night for instance, and mail sent where a run fails
#          or none succeeds. Running it again changes what it made.
#
# The expression is one of EventBridge Scheduler, in UTC: "cron(0 3 * * ? *)" is each night at three, "rate(12 hours)"
# twice a day. create_docker_resources.sh makes the task. Arguments go to the job, after those that it gets anyway:
#
#   --input_path s3://$S3_BUCKET_NAME/dataset --output_path s3://$S3_BUCKET_NAME/output --if_changed --summary json
#
#   --serverless   has the job run on EMR Serverless instead, as it is now; create_role_emr_serverless.sh makes its role
#
# It is a CloudFormation stack, from infrastructure/; the changes are shown. Besides the runs it costs some 0.11 USD a
# month. delete_schedule.sh removes it.
#
# Environment (set_env_vars.sh has defaults):
#   ALARM_EMAIL          who is told; required; has to confirm the mail that AWS sends first
#   ALARM_HOURS          how long no run may have succeeded, up to 168 (26)
#   S3_BUCKET_NAME       the bucket; required
#   AWS_DEFAULT_REGION   where
#   EMR_RELEASE_LABEL    serverless: the release of EMR, with Spark 4 (emr-spark-8.1.0)
#   EMR_TIME_LIMIT       serverless: after which time EMR ends the job: 5m at least, 30m or 2h (2h)
#   EMR_MAX_VCPU         serverless: how far it may grow, with 4 GB a vCPU (16)
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#
# Exit status: 0; 1 when AWS refuses something, 2 for wrong usage, 129, 130 or 143 when a signal ended it: AWS ends what
# it does with a stack (which one is said), and the next start goes on from there.
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
  # shellcheck source=scripts/schedule.sh
  source "$root/scripts/schedule.sh"
  help_if_asked "$@"
  local way=fargate expression outputs pending
  take_flags SERVERLESS -- "$@"
  set -- ${OTHERS[@]+"${OTHERS[@]}"}
  expression=${1:-}
  require_expression "$expression"
  require_reader
  require_bucket
  if [[ -n $SERVERLESS ]]; then
    way=serverless EMR_TIME_LIMIT=${EMR_TIME_LIMIT:-2h} EMR_MAX_VCPU=${EMR_MAX_VCPU:-16} DRY_RUN=''
    TIME_LIMIT=$(seconds_in EMR_TIME_LIMIT)
    require_time_of_serverless
    require_number EMR_MAX_VCPU
    require_release
  fi
  use_aws_cli "$root"
  end_by say_what_goes_on
  shift
  # the alarm counts from now on; without it, it would be one from the start
  ask cloudwatch put-metric-data --namespace "$STACK_NAME" --metric-name SuccessfulRuns --value 1
  stop_where_asked
  "deploy_${way}_schedule" "$root" "Expression=$expression" "Email=$ALARM_EMAIL" "Hours=$ALARM_HOURS" \
    "Arguments=$(json_list --input_path "s3://$S3_BUCKET_NAME/dataset" --output_path "s3://$S3_BUCKET_NAME/output" \
      --if_changed --summary json "$@")"
  outputs=$(stack_outputs "$STACK_NAME-schedule")
  pending=$(ask sns list-subscriptions-by-topic --topic-arn "$(value_of "$outputs" Mail)" \
    --query "Subscriptions[?SubscriptionArn=='PendingConfirmation'].Endpoint")
  [[ -z $pending ]] || say "$pending has been sent a mail with a link to confirm; until then nobody is told of failures"
  say "ready: $expression, in UTC; delete_schedule.sh removes it"
}

# require_expression TEXT: out with one line unless it is a schedule.
require_expression() {
  local cron='^cron\(([^ ()]+ ){5}[^ ()]+\)$' rate='^rate\([1-9][0-9]* (minute|hour|day)s?\)$' day weekday
  [[ $1 =~ $cron || $1 =~ $rate ]] ||
    die 2 "\"$1\" is no schedule; \"cron(0 3 * * ? *)\" is one (minute, hour, day, month, weekday, year; in UTC)"
  [[ $1 == cron* ]] || return 0
  read -r _ _ day _ weekday _ <<<"$1"
  [[ $day == '?' || $weekday == '?' ]] || die 2 "\"$1\" has both a day and a weekday; one of them must be ?"
}

# require_reader: out with one line unless ALARM_EMAIL is an address; sees to ALARM_HOURS.
require_reader() {
  local address='^[^@[:space:]]+@[^@[:space:]]+\.[^@[:space:]]+$'
  [[ -n ${ALARM_EMAIL:-} ]] || die 2 'ALARM_EMAIL is not set; set it to the address that is told where a run fails'
  [[ $ALARM_EMAIL =~ $address ]] || die 2 "ALARM_EMAIL must be an address of e-mail, not \"$ALARM_EMAIL\""
  ALARM_HOURS=${ALARM_HOURS:-26}
  require_number ALARM_HOURS
  ((1 <= 10#$ALARM_HOURS && 10#$ALARM_HOURS <= 168)) || die 2 "ALARM_HOURS must be 1 to 168, not \"$ALARM_HOURS\""
}

main "$@"
