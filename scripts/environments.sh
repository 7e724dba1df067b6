# shellcheck shell=bash
# Sourced after common.sh: Python environments, Java, the S3 connector of Spark, and the job on this machine.

LEAST_JAVA=17
GREATEST_JAVA=23 # Java 24 lacks what Spark's Hadoop asks for

# make_environment FOLDER REQUIREMENTS: a Python environment that holds just what the requirements file pins; remade
# when that file has changed, or when its Python is gone. Of several that make it at once, one works and the others wait.
make_environment() {
  local folder=$1 requirements=$2
  ! is_ready "$folder" "$requirements" || return 0
  lock "$folder"
  is_ready "$folder" "$requirements" || install_requirements "$folder" "$requirements"
  unlock
}

# is_ready FOLDER REQUIREMENTS: whether the environment holds what is pinned, for the Python that it was made for.
is_ready() {
  cmp -s "$2" "$1/requirements.installed" && "$1/bin/python" -I -S -c 'import os, sys
folder = "python{}.{}".format(*sys.version_info)
sys.exit(not os.path.isdir(os.path.join(sys.argv[1], "lib", folder, "site-packages")))' "$1" 2>/dev/null
}

# lock FOLDER, unlock: what is between them only one process does at a time, where flock is to be had.
lock() {
  command -v flock >/dev/null || return 0
  exec 9>"$1.lock"
  flock -n 9 && return
  printf 'waiting for another start that makes %s\n' "$1" >&2
  flock 9
}

unlock() {
  exec 9>&- # or the job that follows would hold the lock until it ends
}

# install_requirements FOLDER REQUIREMENTS: makes the environment in a folder of its own, to which FOLDER then leads.
# What still runs keeps the one that it was started from; the one before that is deleted.
install_requirements() {
  local folder=$1 requirements=$2 python made before other
  python=$(find_python)
  made=$folder-$(date -u +%Y%m%dT%H%M%SZ)-$$
  printf 'making %s from %s (once; a minute or two)\n' "$folder" "${requirements#"$(dirname "$folder")/"}" >&2
  # shellcheck disable=SC2064 # the folder is named now, for at the end the variable may be gone
  trap "rm -rf $(printf '%q' "$made")" EXIT
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$python" "$made" || die 1 "uv cannot make an environment of $python"
    uv pip install --quiet --python "$made/bin/python" --require-hashes --requirement "$requirements" ||
      die 1 "uv could not install $requirements; is the package index reachable?"
  else
    "$python" -m venv "$made" ||
      die 1 "$python cannot make an environment; on Debian or Ubuntu: sudo apt-get install python3-venv"
    "$made/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      --requirement "$requirements" || die 1 "pip could not install $requirements; is the package index reachable?"
  fi
  rename_doubled_jar "$made"/lib/python3*/site-packages/pyspark
  cp "$requirements" "$made/requirements.installed"
  trap - EXIT
  before=$(readlink "$folder" || true)
  if [[ -d $folder && ! -L $folder ]]; then # as versions before 0.4.0 made it
    before=$(basename "$folder")-0
    mv "$folder" "$folder-0"
  fi
  ln -s "$(basename "$made")" "$made.link"
  "$python" -c 'import os, sys; os.replace(*sys.argv[1:])' "$made.link" "$folder"
  for other in "$folder-0" "$folder"-[0-9]*Z-*; do
    [[ $other == "$made" || $(basename "$other") == "$before" ]] || rm -rf "$other"
  done
}

# rename_doubled_jar SPARK_HOME: Spark's launcher names the jar that begins so a second time on the class path, and
# Java 21 takes no archive of classes for a class path with doubles.
rename_doubled_jar() {
  local jar
  for jar in "$1"/jars/slf4j-api-*.jar; do
    [[ ! -e $jar ]] || mv "$jar" "${jar/slf4j-api/slf4j.api}"
  done
}

# resolved FOLDER: prints where an environment stands, which stays when another takes its place.
resolved() {
  (CDPATH='' cd -P "$1" && pwd)
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

# java_version: prints the version of the Java that Spark would take, as 17.0.13; nothing where there is none.
java_version() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java
  "$java" -version 2>&1 | sed -n 's/.* version "\([0-9._]*\).*/\1/p' || true
}

# require_java: sets JAVA_VERSION; out with one line unless there is a Java that Spark can take.
require_java() {
  local version
  JAVA_VERSION=$(java_version)
  version=${JAVA_VERSION%%.*}
  ((${version:-0} >= LEAST_JAVA && version <= GREATEST_JAVA)) ||
    die 1 "the spark engine needs Java $LEAST_JAVA or 21, found ${version:-none}; \
on Debian or Ubuntu: sudo apt-get install openjdk-$LEAST_JAVA-jre-headless"
}

# use_spark_environment ROOT: makes .venv-spark and has Spark's own scripts take it.
# SPARK_HOME is set because the search for it, in Spark's find-spark-home, fails where a path has a space in it.
use_spark_environment() {
  require_java
  make_environment "$1/.venv-spark" "$1/requirements.txt"
  local environment spark_homes
  environment=$(resolved "$1/.venv-spark")
  spark_homes=("$environment"/lib/python3*/site-packages/pyspark)
  export SPARK_HOME=${spark_homes[0]} PYSPARK_PYTHON=$environment/bin/python
  unset PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS # a notebook's, as somebody's profile may set it
}

# make_class_archive ROOT ENVIRONMENT NAME [OPTION...]: an archive of the classes that the job loads when it is submitted
# with such options, as Java takes them all at once. It is of use to this Java alone, and empty where Java makes none.
make_class_archive() {
  local output training status=0
  CLASS_ARCHIVE=$2/$3-$JAVA_VERSION.jsa
  [[ ! -e $CLASS_ARCHIVE && -w $2 ]] || return 0
  lock "$CLASS_ARCHIVE"
  if [[ ! -e $CLASS_ARCHIVE ]]; then
    printf 'making %s, with which Spark takes two thirds of the time (once; half a minute)\n' "$CLASS_ARCHIVE" >&2
    rm -f "$2/$3"-[0-9]*.jsa # that of a Java before this one
    output=$(mktemp -d)
    # compiled by the quick compiler alone, for of this run nothing but its classes is kept
    (become_spark_submit "$1" \
      "\"-XX:ArchiveClassesAtExit=$CLASS_ARCHIVE.part\" -XX:TieredStopAtLevel=1 -Xlog:disable" "${@:4}" \
      "$1/movielens_pipeline.py" --input_path "$1/dataset" --output_path "$output" >/dev/null 2>&1) &
    training=$!
    trap 'end_training 129' HUP
    trap 'end_training 130' INT
    trap 'end_training 143' TERM
    wait "$training" || status=$?
    trap - HUP INT TERM
    # where that run failed the job will, too, and say why
    ((status)) || { touch "$CLASS_ARCHIVE.part" && mv "$CLASS_ARCHIVE.part" "$CLASS_ARCHIVE"; }
    rm -rf "$output" "$CLASS_ARCHIVE.part"
  fi
  unlock
}

# end_training STATUS: out by a signal, with the run that make_class_archive waits for.
end_training() {
  trap '' HUP INT TERM
  kill "$training" 2>/dev/null || true
  wait "$training" || true
  rm -rf "$output" "$CLASS_ARCHIVE.part"
  exit "$1"
}

# become_spark_submit ROOT JAVA_OPTIONS OPTION...: becomes spark-submit with the configuration for one machine. That is
# handed over by options and not as SPARK_CONF_DIR, for Java takes no archive where a folder is on the class path.
become_spark_submit() {
  exec "$SPARK_HOME/bin/spark-submit" --properties-file "$1/scripts/spark-conf/spark-defaults.conf" \
    --driver-java-options "\"-Dlog4j2.configurationFile=$1/scripts/spark-conf/log4j2.properties\" $2" "${@:3}"
}

# make_s3_jars SPARK_HOME FOLDER PINS: the jars by which Spark reaches S3, which PyPI's pyspark lacks. Their versions are
# those of the jars that Spark has, and what Hadoop's connector itself asks for.
make_s3_jars() {
  make_jars get_s3_jars 'the S3 connector of Spark' '650 MB' "$@"
}

get_s3_jars() {
  local spark
  get_hadoop_jars "$@" hadoop-aws
  spark=$(basename "$1"/jars/spark-core_*.jar .jar) # spark-core_<Scala>-<version>
  spark=${spark#spark-core_}
  # alone, for it depends on the connectors of other clouds
  get_jars "$@" org.apache.spark "spark-hadoop-cloud_${spark%%-*}" "${spark#*-}" -notransitive
}

# make_hdfs_jars SPARK_HOME FOLDER PINS: namenode and datanode for the tests, of the Hadoop that Spark has.
make_hdfs_jars() {
  make_jars get_hdfs_jars 'HDFS for the tests' '40 MB' "$@"
}

get_hdfs_jars() {
  get_hadoop_jars "$@" hadoop-client-minicluster -notransitive
}

# make_jars GETTER WHAT SIZE SPARK_HOME FOLDER PINS: jars from Maven Central, which Spark's own Ivy gets. The folder is
# there when all of them are, and are those that the file of checksums pins.
make_jars() {
  local getter=$1 what=$2 size=$3 spark_home=$4 folder=$5 pins=$6
  [[ -d $folder ]] && return
  lock "$folder"
  if [[ ! -d $folder ]]; then
    printf 'getting %s into %s (once; %s)\n' "$what" "$folder" "$size" >&2
    rm -rf "$folder.part"
    "$getter" "$spark_home" "$folder.part"
    rm -rf "$folder.part/ivy"
    require_pinned "$folder.part" "$pins"
    mv "$folder.part" "$folder"
  fi
  unlock
}

# get_hadoop_jars SPARK_HOME FOLDER MODULE [OPTION]: a module of Hadoop, of the version that Spark has.
get_hadoop_jars() {
  local hadoop
  hadoop=$(basename "$1"/jars/hadoop-client-api-*.jar .jar) # hadoop-client-api-<version>
  get_jars "$1" "$2" org.apache.hadoop "$3" "${hadoop##*-}" "${@:4}"
}

# get_jars SPARK_HOME FOLDER ORGANISATION MODULE VERSION [OPTION]
get_jars() {
  local spark_home=$1 folder=$2 module=$4
  "${JAVA_HOME:+$JAVA_HOME/bin/}java" -cp "$spark_home/jars/*" org.apache.ivy.Main -error -cache "$folder/ivy" \
    -dependency "${@:3}" -confs default -types jar -retrieve "$folder/[artifact]-[revision].[ext]" >/dev/null ||
    die 1 "could not get $module; is Maven Central reachable?"
}

# require_pinned FOLDER PINS: out with one line, and without the folder, unless its jars are those of the file.
require_pinned() {
  local others
  others=$({ diff <(checksums "$1") "$2" || true; } | sed -n 's/^[<>] [0-9a-f]*  //p' | sort -u)
  if [[ -n $others ]]; then
    rm -rf "$1"
    die 1 "not what $(basename "$2") pins: ${others//$'\n'/, }; nothing of it was kept"
  fi
}

# checksums FOLDER: prints the SHA-256 of each jar in the folder, and its name.
checksums() (
  CDPATH='' cd "$1" || return
  # shellcheck disable=SC2030 # for this subshell alone
  LC_ALL=C
  if command -v sha256sum >/dev/null; then sha256sum -- *.jar; else shasum -a 256 -- *.jar; fi
)

# use_utf8_locale: sets LC_ALL for what starts here, where the locale is not UTF-8: Java would take paths for others.
use_utf8_locale() {
  [[ $(locale charmap 2>/dev/null) != UTF-8 ]] || return 0
  # shellcheck disable=SC2031 # no subshell changes it here
  if locale -a 2>/dev/null | grep -qix 'C\.utf-\{0,1\}8'; then export LC_ALL=C.UTF-8; fi
}

# run_on_this_machine ROOT ARGUMENT...: becomes the job, on the engine that its arguments name.
run_on_this_machine() {
  local root=$1 job=$1/movielens_pipeline.py environment options=() archive=classes progress=false
  shift
  if [[ $(option_of engine sail "$@") == sail ]]; then
    make_environment "$root/.venv" "$root/requirements/embedded.txt"
    exec "$(resolved "$root/.venv")/bin/python" "$job" "$@"
  fi
  use_spark_environment "$root"
  use_utf8_locale
  environment=$(resolved "$root/.venv-spark")
  if [[ "$*" == *s3://* || "$*" == *s3a://* ]]; then
    make_s3_jars "$SPARK_HOME" "$environment/s3-jars" "$root/requirements/s3-jars.sha256"
  fi
  if [[ -d $environment/s3-jars ]]; then # for whatever path, so that one archive of classes does for all
    options+=(--driver-class-path "$environment/s3-jars/*")
    archive=classes-s3
  fi
  [[ ! -t 2 ]] || progress=true
  options+=(--conf "spark.ui.showConsoleProgress=$progress")
  # a configuration of the user's own is a folder on the class path, and options cannot spell every path
  if [[ -n ${SPARK_CONF_DIR:-} || $root == *[\"\\,]* ]]; then
    export SPARK_CONF_DIR=${SPARK_CONF_DIR:-$root/scripts/spark-conf}
    exec "$SPARK_HOME/bin/spark-submit" "${options[@]}" "$job" "$@"
  fi
  make_class_archive "$root" "$environment" "$archive" "${options[@]}"
  become_spark_submit "$root" "\"-XX:SharedArchiveFile=$CLASS_ARCHIVE\" -Xlog:cds=off -Xlog:cds+dynamic=off" \
    "${options[@]}" "$job" "$@"
}
