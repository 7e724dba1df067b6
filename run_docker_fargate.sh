#!/usr/bin/env bash
# Usage: run_docker_fargate.sh [--check] [--upload_dataset] [--dry_run] [--input_path PATH] [--output_path PATH] [...]
# Summary: Runs the container on ECS Fargate, from a bucket to a bucket, follows its log and waits for its end.
#
# create_docker_resources.sh makes what it needs, once. Without arguments the job reads s3://$S3_BUCKET_NAME/dataset
# and publishes to s3://$S3_BUCKET_NAME/output; arguments go to the job, and yours override these.
#
#   --check            looks whether a run could start, changes nothing, and prints what it found, a line each
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
#   PATIENCE_SECONDS     how long it tries again what AWS throttles or does not answer (60)
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#
# Exit status: the container's; 1 when AWS refuses something or the task could not run, 2 for wrong usage, 5 where
# something that it started may still run (what, what it costs and how to end it is said), 124 at the time limit, 129,
# 130 or 143 when a signal ended it. With --check 0 where a run could start, else 1.
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
  RUN_ID=$(date -u +%Y%m%dT%H%M%SZ)-$$-$RANDOM
  take_flags CHECK DRY_RUN UPLOAD_DATASET -- "$@"
  TIME_LIMIT=$(seconds_in FARGATE_TIME_LIMIT)
  require_bucket
  use_aws_cli "$root"
  # shellcheck source=scripts/fargate.sh
  source "$root/scripts/fargate.sh"
  if [[ -n $CHECK ]]; then
    # shellcheck source=scripts/check_aws.sh
    source "$root/scripts/check_aws.sh"
    check_run "$root"
  fi
  require_bucket_there
  [[ -z $UPLOAD_DATASET ]] || upload_dataset "$(python_with_boto3 "$root")" "$root/scripts/upload_dataset.py" "$ACCOUNT"
  run_on_aws "$TIME_LIMIT" 'has not stopped in %d seconds; it is stopped' --input_path "s3://$S3_BUCKET_NAME/dataset" \
    --output_path "s3://$S3_BUCKET_NAME/output" ${OTHERS[@]+"${OTHERS[@]}"}
}

main "$@"
