#!/usr/bin/env bash
# Usage: exec_EMR_compute_s3_storage.sh [--serverless [--keep]] [--check] [--upload_dataset] [--dry_run] [...]
# Summary: Runs the job on Amazon EMR, from a bucket to a bucket, waits for its end and leaves nothing running.
#
# Uploads the job to s3://$S3_BUCKET_NAME/code, starts a cluster with the job as its one step (it ends with the step),
# shows what happens and then the driver's log. Without arguments the job reads s3://$S3_BUCKET_NAME/dataset and
# publishes to s3://$S3_BUCKET_NAME/output; arguments go to the job, and yours override these.
# create_role_emr_serverless.sh makes the bucket, the network and the roles that it needs, once.
#
#   --serverless       on EMR Serverless instead: an application, started for the job and deleted after it
#   --keep             leaves the application for the next run with --keep; it stops after five idle minutes
#   --check            looks whether a run could start, changes nothing, and prints what it found, a line each
#   --upload_dataset   first uploads the bundled dataset/, where the bucket has none
#   --dry_run          prints the calls that it would make, and changes nothing
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME                the bucket; required
#   AWS_DEFAULT_REGION            its region
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                                 credentials, from wherever the AWS command line takes them
#   EMR_RELEASE_LABEL             the release of EMR, with Spark 4 (emr-spark-8.1.0)
#   EMR_TIME_LIMIT                after which time EMR ends the job: 90s (serverless: 5m at least), 30m or 2h (2h)
#   EMR_START_LIMIT               how much longer this script waits before it ends all, for the start takes time (30m)
#   EMR_INSTANCE_TYPES            cluster: what it may be made of (m7g.xlarge m6g.xlarge m6gd.xlarge r6g.xlarge)
#   EMR_CORE_INSTANCES            cluster: how many, on spot where there is some, beside the primary (2)
#   IAM_ROLE_ARN                  serverless: the role of the job (that of create_role_emr_serverless.sh)
#   EMR_MAX_VCPU                  serverless: how far it may grow, with 4 GB a vCPU (16)
#   EMR_PRICE_PER_INSTANCE_HOUR, EMR_PRICE_PER_VCPU_HOUR, EMR_PRICE_PER_GB_HOUR
#                                 for the estimates, in USD; look them up for your region (0.20, 0.042094, 0.004628)
#   POLL_SECONDS                  how often it looks (10)
#   PATIENCE_SECONDS              how long it tries again what AWS throttles or does not answer (60)
#   STACK_NAME                    what the names of all it makes begin with (movielens-pipeline)
#
# Exit status: the job's; 1 when AWS refuses something or the cluster dies, 2 for wrong usage, 5 where something that it
# started may still run (what, what it costs and how to end it is said), 124 at the time limit, 129, 130 or 143 when a
# signal ended it. With --check 0 where a run could start, else 1.
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
  EMR_TIME_LIMIT=${EMR_TIME_LIMIT:-2h} EMR_START_LIMIT=${EMR_START_LIMIT:-30m} LOG_SECONDS=${LOG_SECONDS:-300}
  RUN_ID=$(date -u +%Y%m%dT%H%M%SZ)-$$-$RANDOM
  take_flags SERVERLESS KEEP CHECK DRY_RUN UPLOAD_DATASET -- "$@"
  [[ -z $KEEP || -n $SERVERLESS ]] || die 2 '--keep goes with --serverless; a cluster ends with its step'
  TIME_LIMIT=$(seconds_in EMR_TIME_LIMIT)
  DEADLINE=$(seconds_in EMR_START_LIMIT)
  DEADLINE=$((DEADLINE + TIME_LIMIT))
  require_release
  local way=emr_cluster ended_by=terminated
  [[ -z $SERVERLESS ]] || way=emr_serverless ended_by=cancelled
  # shellcheck source=scripts/emr_cluster.sh
  source "$root/scripts/$way.sh"
  require_bucket
  use_aws_cli "$root"
  if [[ -n $CHECK ]]; then
    # shellcheck source=scripts/check_aws.sh
    source "$root/scripts/check_aws.sh"
    check_run "$root"
  fi
  require_bucket_there
  upload_job "$root"
  [[ -z $UPLOAD_DATASET ]] || upload_dataset "$(python_with_boto3 "$root")" "$root/scripts/upload_dataset.py" "$ACCOUNT"
  run_on_aws "$DEADLINE" "has not ended in %d seconds; it is $ended_by" --input_path "s3://$S3_BUCKET_NAME/dataset" \
    --output_path "s3://$S3_BUCKET_NAME/output" ${OTHERS[@]+"${OTHERS[@]}"}
}

main "$@"
