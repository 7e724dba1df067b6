#!/usr/bin/env bash
# Usage: docker run --volume "$(pwd)":/app movielens_pipeline [ARGUMENT...]
# Summary: What the container image runs: the job, from /app/dataset to /app/output unless the arguments say otherwise.
#
# Started as root, it becomes the owner of what is mounted where it writes, /app for one, or user 1000 where nothing is:
# what it writes is theirs. In a folder of root it stays root. With docker run --user it is that user.
#
# Environment:
#   KEEP_USER          not empty: stays root where it is started as root
#   MOVIELENS_ENGINE   the engine where the arguments name none: sail, or spark in the image that has it
#   CLASS_ARCHIVE      the option of Java by which the spark engine uses the archive of classes
#
# Exit status: the job's.
set -euo pipefail

main() {
  local home=/opt/movielens arguments
  # shellcheck source=scripts/common.sh
  source "$home/scripts/common.sh"
  ((EUID != 0)) || [[ -n ${KEEP_USER:-} ]] || become_owner "$@"
  arguments=("$home/movielens_pipeline.py" --engine "$MOVIELENS_ENGINE" --input_path /app/dataset
    --output_path /app/output "$@")
  case " $* " in
  *" --output"[_-]path* | *" --help "* | *" -h "* | *" --version "*) ;;
  *) require_writable /app/output ;;
  esac
  if [[ $(option_of engine sail "${arguments[@]}") == spark ]] && command -v spark-submit >/dev/null; then
    know_the_user
    # not as SPARK_CONF_DIR, for the archive of classes suffers no folder on the class path
    exec spark-submit --properties-file "$home/scripts/spark-conf/spark-defaults.conf" --driver-java-options \
      "-Dlog4j2.configurationFile=$home/scripts/spark-conf/log4j2.properties $CLASS_ARCHIVE" "${arguments[@]}"
  fi
  exec "$home/environment/bin/python" "${arguments[@]}"
}

# become_owner ARGUMENT...: starts over as the owner of the mount that is written to, unless that is root.
become_owner() {
  local output mount owner=1000:1000
  output=$(output_of "$@")
  if [[ $output != *://* ]]; then
    until [[ -e $output ]]; do output=$(dirname "$output"); done
    mount=$(stat --format %m "$output")
    [[ $mount == / ]] || owner=$(stat --format %u:%g "$mount")
  fi
  export KEEP_USER=yes
  if [[ ${owner%:*} == 0 ]]; then
    printf 'the folder that is mounted at %s belongs to root, and so will what is written there\n' "$mount" >&2
    return
  fi
  exec setpriv --reuid "${owner%:*}" --regid "${owner#*:}" --clear-groups "$0" "$@"
}

# output_of ARGUMENT...: prints where the arguments have the job write to.
output_of() {
  local output=/app/output
  while (($#)); do
    case $1 in
    --output[_-]path) output=${2:-} ;;
    --output[_-]path=*) output=${1#*=} ;;
    esac
    shift
  done
  printf '%s\n' "${output#file://}"
}

# require_writable FOLDER: out with one line where the user may neither write to the folder nor make it.
require_writable() {
  local folder=$1
  [[ -e $folder ]] || folder=$(dirname "$folder")
  [[ -w $folder ]] || die 1 "user $(id -u) may not write to $folder: mount a folder at /app, or one that this user may \
write to; without --user it is the folder's owner"
}

# know_the_user: gives a user of docker run --user, who is not in /etc/passwd, the name that Hadoop insists on.
know_the_user() {
  if ! getent passwd "$(id -u)" >/dev/null; then
    printf 'movielens:x:%s:%s::/tmp:/bin/false\n' "$(id -u)" "$(id -g)" >/tmp/passwd
    export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/etc/group
  fi
}

main "$@"
