#!/usr/bin/env bash
# Usage: docker run --volume "$(pwd)":/app movielens_pipeline [ARGUMENT...]
# Summary: What the container image runs: the job, from /app/dataset to /app/output unless the arguments say otherwise.
#
# Environment:
#   MOVIELENS_ENGINE   the engine where the arguments name none: sail, or spark in the image that has it
#   CLASS_ARCHIVE      the option of Java by which the spark engine uses the archive of classes
#
# Exit status: the job's.
set -euo pipefail

main() {
  local home=/opt/movielens arguments
  # shellcheck source=scripts/common.sh
  source "$home/scripts/common.sh"
  arguments=("$home/movielens_pipeline.py" --engine "$MOVIELENS_ENGINE" --input_path /app/dataset
    --output_path /app/output "$@")
  case " $* " in
  *" --output"[_-]path* | *" --help "* | *" -h "* | *" --version "*) ;;
  *) require_writable /app/output ;;
  esac
  if [[ $(engine_of "${arguments[@]}") == spark ]] && command -v spark-submit >/dev/null; then
    know_the_user
    # not as SPARK_CONF_DIR, for the archive of classes suffers no folder on the class path
    exec spark-submit --properties-file "$home/scripts/spark-conf/spark-defaults.conf" --driver-java-options \
      "-Dlog4j2.configurationFile=$home/scripts/spark-conf/log4j2.properties $CLASS_ARCHIVE" "${arguments[@]}"
  fi
  exec "$home/environment/bin/python" "${arguments[@]}"
}

# require_writable FOLDER: out with one line where the user may neither write to the folder nor make it.
require_writable() {
  local folder=$1
  [[ -e $folder ]] || folder=$(dirname "$folder")
  [[ -w $folder ]] || die 1 "user $(id -u) may not write to the folder that is mounted at /app; \
behind docker run add: --user \"\$(id -u):\$(id -g)\""
}

# know_the_user: gives a user of docker run --user, who is not in /etc/passwd, the name that Hadoop insists on.
know_the_user() {
  if ! getent passwd "$(id -u)" >/dev/null; then
    printf 'movielens:x:%s:%s::/tmp:/bin/false\n' "$(id -u)" "$(id -g)" >/tmp/passwd
    export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/etc/group
  fi
}

main "$@"
