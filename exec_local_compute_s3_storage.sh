#!/usr/bin/env bash
# Usage: exec_local_compute_s3_storage.sh [--upload_dataset] [--engine sail|spark] [--input_path PATH] [...]
# Summary: Runs the job on this machine, from a bucket to a bucket.
#
# Without arguments it reads s3://$S3_BUCKET_NAME/dataset and publishes to s3://$S3_BUCKET_NAME/output. Arguments go to
# the job; those given here come first, so yours override them: either path may be a folder, too. The first start makes
# a Python environment as exec_local_compute_local_storage.sh does; with --engine spark it gets the S3 connector, too.
#
#   --upload_dataset   first uploads the bundled dataset/, where the bucket has none
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME        the bucket; required
#   AWS_DEFAULT_REGION    its region
#   AWS_ENDPOINT_URL      the address of a store other than AWS that speaks S3
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                         credentials, from wherever the AWS command line takes them
#   JAVA_HOME, SPARK_CONF_DIR, SPARK_DRIVER_MEMORY
#                         as for exec_local_compute_local_storage.sh
#
# Exit status: the job's; 1 when its environment cannot be made, 2 when S3_BUCKET_NAME is not set.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  help_if_asked "$@"
  require_bucket
  take_flags UPLOAD_DATASET -- "$@"
  if [[ -n $UPLOAD_DATASET ]]; then
    make_environment "$root/.venv" "$root/requirements/embedded.txt"
    upload_dataset "$root/.venv/bin/python" "$root/scripts/upload_dataset.py"
  fi
  run_on_this_machine "$root" --input_path "s3://$S3_BUCKET_NAME/dataset" --output_path "s3://$S3_BUCKET_NAME/output" \
    ${OTHERS[@]+"${OTHERS[@]}"}
}

main "$@"
