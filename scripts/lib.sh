# shellcheck shell=bash
# Sourced by the scripts of the project's top folder: help, messages, Python environments, Java.

LEAST_JAVA=17

# help_if_asked ARGUMENT...: where the first argument asks for it, prints the header comment of the script and ends.
help_if_asked() {
  [[ ${1:-} == --help || ${1:-} == -h ]] || return 0
  sed -n '2,/^[^#]/p' "$0" | sed -n 's/^# \{0,1\}//p'
  exit
}

# die STATUS MESSAGE: one line on standard error, and out.
die() {
  printf '%s: error: %s\n' "$(basename "$0")" "$2" >&2
  exit "$1"
}

# make_environment FOLDER REQUIREMENTS: a Python environment that holds just what the requirements file pins;
# remade when that file has changed. Of several that make it at once, one works and the others wait.
make_environment() {
  local folder=$1 requirements=$2
  cmp -s "$requirements" "$folder/requirements.installed" && return
  if command -v flock >/dev/null; then
    exec 9>"$folder.lock"
    flock 9
    if cmp -s "$requirements" "$folder/requirements.installed"; then
      exec 9>&-
      return
    fi
  fi
  local python
  python=$(find_python)
  printf 'making %s from %s (once; a minute or two)\n' "$folder" "$(basename "$requirements")" >&2
  rm -rf "$folder"
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$python" "$folder"
    uv pip install --quiet --python "$folder/bin/python" --require-hashes --requirement "$requirements"
  else
    "$python" -m venv "$folder" ||
      die 1 "$python cannot make an environment; on Debian or Ubuntu: sudo apt-get install python3-venv"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      --requirement "$requirements" || die 1 "pip could not install $requirements; is the package index reachable?"
  fi
  cp "$requirements" "$folder/requirements.installed"
  exec 9>&- # or the job that follows would hold the lock until it ends
}

# find_python: prints a Python of at least 3.11.
find_python() {
  local python
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$python"
      return
    fi
  done
  die 1 'Python 3.11 or newer is needed; on Debian or Ubuntu: sudo apt-get install python3 python3-venv'
}

# java_version: prints the major version of the Java that Spark would take; nothing where there is none.
java_version() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java
  "$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' || true
}

# require_java: out with one line unless there is a Java that Spark can take.
require_java() {
  local version
  version=$(java_version)
  ((${version:-0} >= LEAST_JAVA)) || die 1 "the spark engine needs Java $LEAST_JAVA or 21, found ${version:-none}; \
on Debian or Ubuntu: sudo apt-get install openjdk-$LEAST_JAVA-jre-headless"
}

# use_spark_environment ROOT: has Spark's own scripts take the environment .venv-spark and a quiet configuration.
# SPARK_HOME is set because the search for it, in Spark's find-spark-home, fails where a path has a space in it.
use_spark_environment() {
  local spark_homes=("$1"/.venv-spark/lib/python3*/site-packages/pyspark)
  export SPARK_HOME=${spark_homes[0]} PYSPARK_PYTHON=$1/.venv-spark/bin/python
  export SPARK_CONF_DIR=${SPARK_CONF_DIR:-$1/scripts/spark-conf}
}

# engine_of ARGUMENT...: prints the engine that the arguments name, sail where they name none.
engine_of() {
  local engine=sail
  while (($#)); do
    case $1 in
    --engine) engine=${2:-} ;;
    --engine=*) engine=${1#--engine=} ;;
    esac
    shift
  done
  printf '%s\n' "$engine"
}
