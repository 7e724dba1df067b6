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

# option_of NAME DEFAULT ARGUMENT...: prints what the arguments say of an option, as engine or output_path, the last of
# them; the default where they say nothing.
option_of() {
  local name=$1 value=$2
  shift 2
  while (($#)); do
    case $1 in
    --"$name" | --"${name//_/-}") value=${2:-} ;;
    --"$name"=* | --"${name//_/-}"=*) value=${1#*=} ;;
    esac
    shift
  done
  printf '%s\n' "$value"
}

# take_flags NAME... -- ARGUMENT...: sets the variable of each flag, as DRY_RUN of --dry_run or --dry-run, to yes where
# it is among the arguments and else to nothing, and OTHERS to the others.
take_flags() {
  local known=' ' name argument
  while [[ $1 != -- ]]; do
    known+="$1 "
    printf -v "$1" ''
    shift
  done
  shift
  OTHERS=()
  for argument in "$@"; do
    name=$(tr 'a-z-' 'A-Z_' <<<"${argument#--}")
    if [[ $argument == --[a-z]* && $known == *" $name "* ]]; then
      printf -v "$name" yes
    else
      OTHERS+=("$argument")
    fi
  done
}

# upload_dataset COMMAND...: brings the bundled dataset to S3_BUCKET_NAME, unless it has one. The command is the Python,
# or what runs it elsewhere, and the script there.
upload_dataset() {
  "$@" ${DRY_RUN:+--dry_run} "$S3_BUCKET_NAME"
}
