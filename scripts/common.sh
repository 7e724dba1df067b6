# shellcheck shell=bash
# Sourced by every script: help, messages, and what several of them ask of their arguments.

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

# require_bucket: out with one line unless S3_BUCKET_NAME is set.
require_bucket() {
  [[ -n ${S3_BUCKET_NAME:-} ]] || die 2 'S3_BUCKET_NAME is not set; set it, or: source set_env_vars.sh'
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
