#!/usr/bin/env bash
# Usage: run_docker_EMR_compute_s3_storage.sh [--serverless [--keep]] [--check] [--upload_dataset] [--dry_run] [...]
# Summary: Runs exec_EMR_compute_s3_storage.sh in a container of its own image, which it builds when it is missing or
#          stale: for machines without Python and the AWS command line.
#
# Arguments and environment are those of exec_EMR_compute_s3_storage.sh, and are handed over. Interrupted, it ends what
# it started, as that script does.
#
# Environment:
#   S3_BUCKET_NAME        the bucket; required
#   DOCKER_NETWORK        the network of the container; host for servers on this machine (default: docker's)
#   AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                         as for exec_EMR_compute_s3_storage.sh, which says all of them; ~/.aws is mounted where no key
#                         is set
#
# Exit status: that of exec_EMR_compute_s3_storage.sh; 1 when there is no docker or the image cannot be built; 125 to
# 127 are docker's own.
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
  build_image "$root" movielens_pipeline:aws aws
  local options=(--rm --user "$(id -u):$(id -g)")
  hand_over_environment S3_BUCKET_NAME IAM_ROLE_ARN STACK_NAME POLL_SECONDS PATIENCE_SECONDS LOG_SECONDS \
    EMR_RELEASE_LABEL EMR_TIME_LIMIT EMR_START_LIMIT EMR_INSTANCE_TYPES EMR_CORE_INSTANCES EMR_MAX_VCPU EMR_PRICE_PER_INSTANCE_HOUR \
    EMR_PRICE_PER_VCPU_HOUR EMR_PRICE_PER_GB_HOUR
  exec docker run "${options[@]}" movielens_pipeline:aws "$@"
}

main "$@"
