#!/usr/bin/env bash
# Usage: run_docker_local_compute_local_storage.sh [--engine sail|spark] [--input_path PATH] [--output_path PATH] [...]
# Summary: Runs the job in its container image, from a folder to a folder.
#
# Without arguments it reads the bundled dataset/ and publishes to output/, beside this script. Arguments go to the job.
# The container sees the two folders only, the input not to be written to, and runs as you. The image is built when it
# is missing or older than what it is made of: movielens_pipeline, or movielens_pipeline:spark for --engine spark.
#
# Environment:
#   SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE   as docs/configuration.md says; handed over when it is set
#
# Exit status: the job's; 1 when there is no docker or the image cannot be built; 125 to 127 are docker's own.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/containers.sh
  source "$root/scripts/containers.sh"
  help_if_asked "$@"
  run_in_container "$root" --input_path "$root/dataset" --output_path "$root/output" "$@"
}

main "$@"
