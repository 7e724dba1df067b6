#!/usr/bin/env bash
# Usage: run_docker_local_compute_s3_storage.sh [--upload_dataset] [--engine sail|spark] [--input_path PATH] [...]
# Summary: Runs the job in its container image, from a bucket to a bucket.
#
# Without arguments it reads s3://$S3_BUCKET_NAME/dataset and publishes to s3://$S3_BUCKET_NAME/output. Arguments go to
# the job; either path may be a folder, which the container then sees. The image is built when it is missing or older
# than what it is made of. Credentials are handed over by the names of their variables, so no list of processes shows
# them; with AWS_PROFILE or no keys at all the container sees ~/.aws, not to be written to.
#
#   --upload_dataset   first uploads the bundled dataset/, where the bucket has none
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME        the bucket; required
#   AWS_DEFAULT_REGION    its region
#   AWS_ENDPOINT_URL      the address of a store other than AWS that speaks S3
#   DOCKER_NETWORK        the network of the container; host for a store on this machine (default: docker's)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE
#                         credentials
#
# Exit status: the job's; 1 when there is no docker or the image cannot be built, 2 when S3_BUCKET_NAME is not set;
# 125 to 127 are docker's own.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/containers.sh
  source "$root/scripts/containers.sh"
  help_if_asked "$@"
  require_bucket
  run_in_container "$root" --input_path "s3://$S3_BUCKET_NAME/dataset" --output_path "s3://$S3_BUCKET_NAME/output" "$@"
}

main "$@"
