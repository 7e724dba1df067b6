#!/usr/bin/env bash
# Usage: exec_local_compute_local_storage.sh [--engine sail|spark] [--input_path PATH] [--output_path PATH]
#        [--report] [...]
# Summary: Runs the job on this machine, from a folder to a folder.
#
# Without arguments it reads the bundled dataset/ and publishes to output/, beside this script. All arguments go
# to the job; those given here come first, so yours override them. The first start makes a Python environment
# beside this script: .venv for the sail engine, .venv-spark for Apache Spark, which needs Java 17 or 21.
#
# With --report, when the job is done, report.py makes a page to look at, report.html in the folder where you are, and
# says where it is.
#
# Environment:
#   JAVA_HOME             the Java for --engine spark (default: the java on PATH)
#   SPARK_CONF_DIR        Spark's configuration (default: scripts/spark-conf, quiet and without web server)
#   SPARK_DRIVER_MEMORY   memory for --engine spark (default: Spark's, 1g)
#
# Exit status: the job's, and then that of report.py; 1 when the environment cannot be made.
set -euo pipefail

main() {
  local root environment
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  environment=$root/.venv
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  help_if_asked "$@"
  take_flags REPORT -- "$@"
  set -- --input_path "$root/dataset" --output_path "$root/output" ${OTHERS[@]+"${OTHERS[@]}"}
  [[ -n $REPORT ]] || run_on_this_machine "$root" "$@"
  (run_on_this_machine "$root" "$@")
  [[ $(option_of engine sail "$@") == sail ]] || environment+=-spark
  exec "$environment/bin/python" "$root/report.py" --output_path "$(option_of output_path '' "$@")" >&2
}

main "$@"
