#!/usr/bin/env bash
# Usage: exec_local_compute_local_storage.sh [--engine sail|spark] [--input_path PATH] [--output_path PATH] [...]
# Summary: Runs the job on this machine, from a folder to a folder.
#
# Without arguments it reads the bundled dataset/ and publishes to output/, beside this script. All arguments go
# to the job; those given here come first, so yours override them. The first start makes a Python environment
# beside this script: .venv for the sail engine, .venv-spark for Apache Spark, which needs Java 17 or 21.
#
# Environment:
#   JAVA_HOME             the Java for --engine spark (default: the java on PATH)
#   SPARK_CONF_DIR        Spark's configuration (default: scripts/spark-conf, quiet and without web server)
#   SPARK_DRIVER_MEMORY   memory for --engine spark (default: Spark's, 1g)
#
# Exit status: the job's; 1 when its environment cannot be made.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  help_if_asked "$@"
  run_on_this_machine "$root" --input_path "$root/dataset" --output_path "$root/output" "$@"
}

main "$@"
