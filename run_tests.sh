#!/usr/bin/env bash
# Usage: run_tests.sh [--all] [PYTEST ARGUMENT...]
# Summary: Runs the tests that show what the job promises: both engines, publishing, rejects, the independent check, the
#          wrappers. With --all every test; with arguments of pytest those that they choose.
#
# The tests run in .venv-spark, which is made from requirements.txt, with the S3 connector of Spark, an HDFS and an
# archive of the classes that Spark loads, where it is missing. The spark half of the tests needs Java 17 or 21, and
# those of the page to look at need Chromium. As root on Debian or Ubuntu they are installed when they are missing;
# elsewhere one line says what to install.
#
# Environment:
#   JAVA_HOME        the Java to test with (default: the java on PATH)
#   MOVIELENS_DATA   a folder with the real releases ml-1m and ml-latest-small; their tests are skipped without
#
# Exit status: pytest's; 1 when the environment cannot be made.
set -euo pipefail

main() {
  local root environment
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  help_if_asked "$@"
  local chosen=() processes
  case ${1:-} in
  '') chosen=(-m 'not thorough') ;;
  --all) shift ;;
  esac
  install_java
  install_chromium
  [[ -e /usr/share/i18n/locales/de_DE ]] || install_packages locales
  use_spark_environment "$root"
  environment=$(resolved "$root/.venv-spark")
  make_s3_jars "$SPARK_HOME" "$environment/s3-jars" "$root/requirements/s3-jars.sha256"
  make_hdfs_jars "$SPARK_HOME" "$environment/hdfs-jars" "$root/requirements/hdfs-jars.sha256"
  make_class_archive "$root" "$environment" classes-s3 --driver-class-path "$environment/s3-jars/*"
  cd "$root"
  # one process more than cores, for many a test waits for others
  processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
  PATH="$root/.venv-spark/bin:$PATH" exec "$root/.venv-spark/bin/python" -m pytest --numprocesses="$processes" \
    --maxprocesses=4 --dist=loadfile --no-loadscope-reorder ${chosen[@]+"${chosen[@]}"} "$@"
}

# install_java, install_chromium: install what is missing where that can be done without asking.
install_java() {
  local version
  version=$(java_version)
  version=${version%%.*}
  ((${version:-0} >= LEAST_JAVA)) || install_packages "openjdk-$LEAST_JAVA-jre-headless"
}

install_chromium() {
  local browser
  for browser in chromium chromium-browser google-chrome; do
    ! command -v "$browser" >/dev/null || return 0
  done
  install_packages chromium fonts-dejavu-core ||
    printf 'run_tests.sh: Chromium could not be installed; the tests that need it are skipped\n' >&2
}

# install_packages PACKAGE...: installs them as root on Debian or Ubuntu; does nothing elsewhere.
install_packages() {
  ((EUID == 0)) && command -v apt-get >/dev/null || return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

main "$@"
