# shellcheck shell=bash
# Sourced after common.sh and environments.sh by the scripts that work with AWS: its command line, an end in order, logs, costs, stacks.

STACK_NAME=${STACK_NAME:-movielens-pipeline}
POLL_SECONDS=${POLL_SECONDS:-10}
PATIENCE_SECONDS=${PATIENCE_SECONDS:-60} # how long a call that was throttled or got no answer is tried again
ANSWER_SECONDS=${ANSWER_SECONDS:-30}     # how long the answer to one is waited for
UNANSWERED=6                             # the status of ask_to_start where the call may have been carried out
STILL_RUNNING=5                          # the exit status where something may still run and cost
ACCOUNT=''                               # whose credentials these are
LOG=''                                   # what fetch_log got
COMPLAINT=''                             # what try got where it failed
SIGNALLED=0                              # the exit status that a signal has asked for
UNDER_WAY=''                             # the stack that AWS makes, changes or removes at the moment

# use_aws_cli ROOT: the aws of this machine; where there is none, one of the project's own.
use_aws_cli() {
  export AWS_PAGER='' AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=${AWS_MAX_ATTEMPTS:-3}
  command -v aws >/dev/null && return
  make_environment "$1/.venv-aws" "$1/requirements/aws.txt"
  export PATH="$PATH:$1/.venv-aws/bin"
}

# say MESSAGE: on standard error.
say() {
  printf '%s\n' "$1" >&2
}

# ask SERVICE OPERATION ARGUMENT...: prints what AWS answers, as text. Where it refuses, one line says why, and out.
ask() {
  try --output text "$@" || die 1 "$(refusal_of "$@")"
}

# refusal_of SERVICE OPERATION ARGUMENT...: prints why AWS refuses the call, which try has made.
refusal_of() {
  printf 'aws %s %s: %s\n' "$1" "$2" "$(in_one_line "$COMPLAINT")"
}

# call_aws ARGUMENT...: calls aws, which waits a minute for each answer by itself.
call_aws() {
  aws "$@" --cli-connect-timeout "$ANSWER_SECONDS" --cli-read-timeout "$ANSWER_SECONDS"
}

# try ARGUMENT...: calls aws; what may pass is tried once more at least. Where it does not, sets COMPLAINT and fails.
try() {
  local status tried='' until=$((SECONDS + PATIENCE_SECONDS))
  while :; do
    status=0
    { COMPLAINT=$(call_aws "$@" 2>&1 >&3) || status=$?; } 3>&1
    ((status != 0)) || return 0
    # all that the command line has to say where it could not look at a change set
    [[ $COMPLAINT != *"'Status'" ]] || COMPLAINT='DescribeChangeSet was throttled, or is not allowed'
    may_pass "$COMPLAINT" || return "$status"
    ((SECONDS < until)) || [[ -z $tried ]] || return "$status"
    tried=yes
    pause "$POLL_SECONDS"
  done
}

# may_pass COMPLAINT: whether the same call may have another answer later. With ONCE only where the call was not carried
# out, as AWS says of one that was throttled.
may_pass() {
  case $1 in
  *hrottl* | *'Rate exceeded'* | *TooManyRequests* | *RequestLimitExceeded* | *SlowDown*) ;;
  # the command line names change sets by the second, and asks again for one when the answer was lost
  *AlreadyExists*CreateChangeSet*) ;;
  *) [[ -z ${ONCE:-} ]] && may_be_carried_out "$1" ;;
  esac
}

# may_be_carried_out COMPLAINT: whether it is not known what became of the call, for there was no answer that tells.
may_be_carried_out() {
  case $1 in
  *'Could not connect'* | *'Connection was closed'* | *imeout* | *'(50'[0-9]')'* | *InternalServer* | *InternalFailure* | *Unavailable*) ;;
  *) return 1 ;;
  esac
}

# ask_whole SERVICE OPERATION ARGUMENT...: the same, for what must not be left half done by a signal.
ask_whole() (
  trap '' HUP INT TERM
  ask "$@"
)

# ask_to_start SERVICE OPERATION ARGUMENT...: as ask_whole; the status is UNANSWERED where it may have been carried out.
ask_to_start() (
  trap '' HUP INT TERM
  ! try --output text "$@" || exit 0
  ! may_be_carried_out "$COMPLAINT" || die "$UNANSWERED" "$(refusal_of "$@")"
  die 1 "$(refusal_of "$@")"
)

# in_one_line TEXT
in_one_line() {
  printf '%s' "$1" | tr -s '\n' ' ' | sed 's/^ *//; s/ *$//'
}

# print_call ARGUMENT...: prints the call of aws as a shell takes it.
print_call() {
  local word
  printf 'aws'
  for word in "$@"; do
    [[ $word != *[!A-Za-z0-9_./:=@,+-]* ]] || word="'${word//\'/\'\\\'\'}'"
    printf ' %s' "$word"
  done
  printf '\n'
}

# json_list WORD...: prints the words as a JSON list.
json_list() {
  local word list=''
  for word in "$@"; do
    list+=",$(json_string "$word")"
  done
  printf '[%s]' "${list#,}"
}

# json_string TEXT
json_string() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\t'/\\t}
  printf '"%s"' "${text//$'\n'/\\n}"
}

# request: prints a request, in JSON, from standard input without its line ends and indentation.
request() {
  sed 's/^ *//' | tr -d '\n'
}

# end_by FUNCTION: has the function called when the script ends, whatever ends it but kill -9. Signals are noted, and
# looked at where nothing is half done.
end_by() {
  trap 'SIGNALLED=129' HUP
  trap 'SIGNALLED=130' INT
  trap 'SIGNALLED=143' TERM
  # shellcheck disable=SC2064 # the function is named now
  trap "end_in_order \$? $1" EXIT
}

# end_in_order STATUS FUNCTION
end_in_order() {
  local status=$1
  trap '' HUP INT TERM
  ((SIGNALLED == 0)) || status=$SIGNALLED
  SIGNALLED=0 # or the first pause of what cleans up would end it
  # errexit is off in there, whatever the function does: it looks at each status itself
  ("$2") || status=$STILL_RUNNING
  exit "$status"
}

# say_left WHAT USD_AN_HOUR COMMAND: says what may still run, and how to end it.
say_left() {
  say "may still be running: $1, at up to $2 USD an hour; to end it: $3"
}

# stop_where_asked: ends where a signal has asked for it.
stop_where_asked() {
  ((SIGNALLED == 0)) || exit "$SIGNALLED"
}

# pause SECONDS: waits, or ends at once where a signal asks for it.
pause() {
  stop_where_asked
  sleep "$1" >/dev/null 2>&1 & # with nothing open that somebody reads to its end
  wait $! || kill $! 2>/dev/null || true
  stop_where_asked
}

# in_time SECONDS FUNCTION ARGUMENT...: waits until the function succeeds; fails when the time is over.
in_time() {
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < until)) || return 1
    pause "$POLL_SECONDS"
  done
}

# require_number NAME: out unless the variable holds a whole number.
require_number() {
  [[ ${!1} =~ ^[0-9]+$ ]] || die 2 "$1 must be a whole number, not \"${!1}\""
}

# seconds_in NAME: prints the seconds of the duration that the variable holds, as timeout takes it: 90s, 30m or 2h.
seconds_in() {
  [[ ${!1} =~ ^0*([1-9][0-9]*)([smh])$ ]] || die 2 "$1 must be a duration such as 90s, 30m or 2h, not \"${!1}\""
  case ${BASH_REMATCH[2]} in
  s) printf '%d\n' "${BASH_REMATCH[1]}" ;;
  m) printf '%d\n' $((BASH_REMATCH[1] * 60)) ;;
  h) printf '%d\n' $((BASH_REMATCH[1] * 3600)) ;;
  esac
}

# require_release: sees to EMR_RELEASE_LABEL; out with one line where it is known to have no Spark 4.
require_release() {
  EMR_RELEASE_LABEL=${EMR_RELEASE_LABEL:-emr-spark-8.1.0}
  [[ ! $EMR_RELEASE_LABEL =~ ^emr-[1-7]\. ]] ||
    die 2 "EMR_RELEASE_LABEL is $EMR_RELEASE_LABEL, which has Spark 3; the job needs Spark 4: emr-spark-8.1.0"
}

# require_time_of_serverless: out with one line unless TIME_LIMIT, in seconds, is one that EMR Serverless takes.
require_time_of_serverless() {
  ((TIME_LIMIT >= 300)) || die 2 'EMR Serverless wants a time limit of at least 5m'
}

# find_account: sets ACCOUNT.
find_account() {
  ACCOUNT=$(ask sts get-caller-identity --query Account)
}

# head_bucket: fails where the bucket is not there or not of ACCOUNT; prints what AWS complains of.
head_bucket() {
  try s3api head-bucket --bucket "$S3_BUCKET_NAME" --expected-bucket-owner "$ACCOUNT" >/dev/null && return
  printf '%s\n' "$COMPLAINT"
  return 1
}

# why_no_bucket COMPLAINT: prints what stands against the use of the bucket.
why_no_bucket() {
  case $1 in
  *404*) printf 'bucket %s does not exist; create_role_emr_serverless.sh makes it\n' "$S3_BUCKET_NAME" ;;
  *403*) printf 'bucket %s belongs to another account than %s, or you may not list it\n' "$S3_BUCKET_NAME" "$ACCOUNT" ;;
  *301*) printf 'bucket %s is in another region than %s\n' "$S3_BUCKET_NAME" "${AWS_REGION:-${AWS_DEFAULT_REGION:-}}" ;;
  *) printf 'bucket %s: %s\n' "$S3_BUCKET_NAME" "$(in_one_line "$1")" ;;
  esac
}

# require_bucket_there: out with one line unless S3_BUCKET_NAME names a bucket of this account; sets ACCOUNT.
require_bucket_there() {
  local complaint
  find_account
  complaint=$(head_bucket) || die 1 "$(why_no_bucket "$complaint")"
}

# change SERVICE OPERATION ARGUMENT...: as ask, without the answer; with --dry_run the call is only printed.
change() {
  if [[ -n $DRY_RUN ]]; then
    print_call "$@"
  else
    ask "$@" >/dev/null
  fi
}

# python_with_boto3 ROOT: prints the Python of this machine where it has boto3, else that of the environment of aws.
python_with_boto3() {
  if python3 -c 'import boto3' 2>/dev/null; then
    printf 'python3\n'
  else
    make_environment "$1/.venv-aws" "$1/requirements/aws.txt"
    printf '%s\n' "$1/.venv-aws/bin/python"
  fi
}

# upload_job ROOT: brings the script and the package to the bucket; sets JOB and PACKAGE, their addresses there. Both are
# named by what is in them, so that a run that goes on keeps its own.
upload_job() {
  local root=$1 made_of folder
  made_of=$(CDPATH='' cd "$root" && find movielens_pipeline.py movielens -name '*.py' -exec cksum {} + | sort | cksum)
  JOB=s3://$S3_BUCKET_NAME/code/movielens_pipeline-${made_of%% *}.py
  PACKAGE=s3://$S3_BUCKET_NAME/code/movielens-${made_of%% *}.zip
  folder=$(mktemp -d)
  pack "$root" "$folder/movielens.zip"
  upload "$root/movielens_pipeline.py" "$JOB"
  upload "$folder/movielens.zip" "$PACKAGE"
  rm -rf "$folder"
}

# upload FILE ADDRESS
upload() {
  change s3api put-object --bucket "$S3_BUCKET_NAME" --key "${2#"s3://$S3_BUCKET_NAME/"}" --body "$1" \
    --expected-bucket-owner "$ACCOUNT"
}

# pack ROOT ARCHIVE: the package as spark-submit --py-files takes it.
pack() {
  (CDPATH='' cd "$1" && "$(find_python)" - "$2" <<'PYTHON') || die 1 "could not pack $1/movielens"
import pathlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
    for file in sorted(pathlib.Path("movielens").rglob("*.py")):
        archive.write(file)
PYTHON
}

# fetch_log ADDRESS: sets LOG to a compressed log of the bucket, or COMPLAINT; fails where it is not there yet.
# shellcheck disable=SC2034 # it is for the caller
fetch_log() {
  local file status=0
  file=$(mktemp)
  if try s3api get-object --bucket "$S3_BUCKET_NAME" --key "${1#"s3://$S3_BUCKET_NAME/"}" \
    --expected-bucket-owner "$ACCOUNT" "$file" >/dev/null; then
    COMPLAINT=''
    LOG=$(gunzip <"$file" 2>/dev/null) || status=1
  elif [[ $COMPLAINT == *NoSuchKey* ]]; then
    status=1
  fi
  rm -f "$file"
  return "$status"
}

# wait_for_log FOLDER: sets LOG to what the driver said, or says that there is nothing.
wait_for_log() {
  in_time "$LOG_SECONDS" fetch_log "$1/stdout.gz" || COMPLAINT='it did not come'
  [[ -z $COMPLAINT ]] || say "no log at $1/stdout.gz: $(in_one_line "$COMPLAINT")"
}

# more_of FOLDER: prints how to see the log of Spark.
more_of() {
  printf 'more of its log: aws s3 cp %s/stderr.gz - | gunzip\n' "$1"
}

# seconds_of TIME: prints a time as seconds; the two generations of the command line write it in two ways.
seconds_of() {
  case $1 in
  *T*) date -d "$1" +%s 2>/dev/null || date -j -u -f '%Y-%m-%dT%H:%M:%S' "${1:0:19}" +%s ;;
  *) printf '%.0f\n' "$1" ;;
  esac
}

# cost_of SECONDS PRICE: prints what so many seconds cost at a price for an hour.
cost_of() {
  awk -v seconds="$1" -v price="$2" 'BEGIN { printf "%.4f", seconds / 3600 * price }'
}

# ---------------------------------------------------------------------------------------------------------------------
# Stacks

# describe_stack NAME QUERY: prints what there is to say of the stack; nothing where there is no such stack.
describe_stack() {
  local complaint status=0
  { complaint=$(ask cloudformation describe-stacks --stack-name "$1" --query "$2" 2>&1 >&3) || status=$?; } 3>&1
  ((status == 0)) || [[ $complaint == *'does not exist'* ]] || {
    say "$complaint"
    exit "$status"
  }
}

# stack_status NAME: prints the stack's status; nothing where there is no such stack.
stack_status() {
  describe_stack "$1" 'Stacks[0].StackStatus'
}

# stack_outputs NAME: prints a line for each output of a stack that is complete: its key, a tab, its value.
stack_outputs() {
  # not_null, for null would be printed as a word
  describe_stack "$1" "not_null(Stacks[?ends_with(StackStatus, '_COMPLETE')] | [0].Outputs, \`[]\`)[].[OutputKey,OutputValue]"
}

# stack_parameters NAME: prints a line for each parameter of the stack: its key, a tab, its value.
stack_parameters() {
  describe_stack "$1" "not_null(Stacks[0].Parameters, \`[]\`)[].[ParameterKey,ParameterValue]"
}

# value_of OUTPUTS KEY
value_of() {
  awk -F '\t' -v key="$2" '$1 == key { print $2 }' <<<"$1"
}

# say_what_goes_on: for set-ups and removals that end before AWS has ended what they asked for.
say_what_goes_on() {
  [[ -z $UNDER_WAY ]] || say "stack $UNDER_WAY is still under way at AWS, and costs nothing; run the script again to go on"
}

# deploy_stack NAME TEMPLATE PARAMETER=VALUE...: makes the stack, or brings it up to date; the change set is shown.
deploy_stack() {
  local name=$1 template=$2 status answer change_set
  shift 2
  let_stack_rest "$name"
  status=$(stack_status "$name")
  if [[ $status == ROLLBACK_COMPLETE || $status == ROLLBACK_FAILED || $status == DELETE_FAILED ]]; then
    delete_stack "$name" # the remains of one that could not be made
    status=''
  fi
  local parameters=()
  (($# == 0)) || parameters=(--parameter-overrides "$@")
  answer=$(ask_whole cloudformation deploy --stack-name "$name" --template-file "$template" --no-execute-changeset \
    --capabilities CAPABILITY_IAM --no-fail-on-empty-changeset --tags "application=$STACK_NAME" \
    ${parameters[@]+"${parameters[@]}"})
  stop_where_asked
  change_set=$(grep -o 'arn:[^ ]*:changeSet/[^ ]*' <<<"$answer") || {
    say "stack $name is up to date"
    return
  }
  say "stack $name:"
  ask cloudformation describe-change-set --stack-name "$name" --change-set-name "$change_set" \
    --query 'Changes[].ResourceChange.[Action,ResourceType,LogicalResourceId,Replacement]' | sed 's/^/  /' >&2
  execute_change_set "$name" "$change_set"
  local wanted=UPDATE_COMPLETE
  [[ -n $status && $status != REVIEW_IN_PROGRESS ]] || wanted=CREATE_COMPLETE
  wait_for_stack "$name" "$wanted"
}

# execute_change_set STACK CHANGE_SET: has AWS make the changes. The token tells a call whose answer was lost from another.
execute_change_set() (
  trap '' HUP INT TERM
  local call=(cloudformation execute-change-set --stack-name "$1" --change-set-name "$2" --client-request-token "${2##*/}")
  try "${call[@]}" || [[ $COMPLAINT == *TokenAlreadyExists* ]] || die 1 "$(refusal_of "${call[@]}")"
)

# wait_for_stack NAME STATUS: waits for the end of what is under way with the stack, which must be of the status then; of
# none where it is to be gone. Not by aws, which does not heed a signal until it has waited to the end.
wait_for_stack() {
  local reason
  UNDER_WAY=$1
  stop_where_asked
  in_time 3600 stack_has_ended "$1" "$2" || die 1 "stack $1 does not become ready; look at its events in the console"
  UNDER_WAY=''
  [[ $STACK_STATUS != "$2" ]] || return 0
  reason=$(why_stack_failed "$1")
  die 1 "stack $1: $reason"
}

# stack_has_ended NAME STATUS: whether the stack is of the status, or will never be; sets STACK_STATUS.
stack_has_ended() {
  STACK_STATUS=$(stack_status "$1") || exit
  [[ $STACK_STATUS == "$2" || -z $STACK_STATUS || $STACK_STATUS == *_FAILED || $STACK_STATUS == *ROLLBACK_COMPLETE ]]
}

# let_stack_rest NAME: waits until nothing is under way with the stack; an earlier start of the script may have been killed.
let_stack_rest() {
  in_time 1800 stack_rests "$1" || die 1 "stack $1 does not come to rest; look at its events in the console"
  stop_where_asked
}

# stack_rests NAME
stack_rests() {
  local status
  status=$(stack_status "$1") || exit
  [[ $status != *_IN_PROGRESS || $status == REVIEW_IN_PROGRESS ]]
}

# why_stack_failed NAME: prints the first reason for which a resource of the stack could not be made or removed.
why_stack_failed() {
  local reason
  reason=$(ask cloudformation describe-stack-events --stack-name "$1" --query "reverse(StackEvents)[?ends_with(\
ResourceStatus, '_FAILED')] | [0].[LogicalResourceId,ResourceStatusReason]")
  in_one_line "${reason:-it did not become ready; look at its events in the console}"
}

# delete_stack NAME: removes the stack and what belongs to it.
delete_stack() {
  local status
  let_stack_rest "$1" # one that is being changed cannot be removed
  status=$(stack_status "$1")
  if [[ -z $status ]]; then
    say "stack $1 is not there"
    return
  fi
  ask_whole cloudformation delete-stack --stack-name "$1"
  wait_for_stack "$1" ''
  say "stack $1 is deleted"
}

# deploy_storage ROOT: the bucket, unless it is there already, and the rights of jobs in it.
deploy_storage() {
  local stack=$STACK_NAME-storage template=$1/infrastructure/storage.yaml made by_stack='' make=yes complaint
  local parameters=("BucketName=$S3_BUCKET_NAME")
  [[ -z ${S3_KMS_KEY_ARN+set} ]] || parameters+=("KeyArn=$S3_KMS_KEY_ARN") # else it stays as it is
  made=$(stack_parameters "$stack")
  [[ $(value_of "$made" BucketName) != "$S3_BUCKET_NAME" || $(value_of "$made" MakeBucket) != yes ]] || by_stack=yes
  if complaint=$(head_bucket); then
    if [[ -z $by_stack ]]; then
      make=no
      say "bucket $S3_BUCKET_NAME is there already and is left as it is"
      require_key_of_bucket "${S3_KMS_KEY_ARN-$(value_of "$made" KeyArn)}"
    fi
  elif [[ $complaint != *404* ]]; then
    die 1 "$(why_no_bucket "$complaint")"
  elif [[ -n $by_stack ]]; then
    say "bucket $S3_BUCKET_NAME was removed by hand and is made anew"
    deploy_stack "$stack" "$template" "${parameters[@]}" MakeBucket=no # so that the stack forgets it
  fi
  deploy_stack "$stack" "$template" "${parameters[@]}" "MakeBucket=$make"
}

# require_no_schedule WAY: out with one line where there is a schedule of the way, which needs what is to be removed.
require_no_schedule() {
  local parameters
  parameters=$(stack_parameters "$STACK_NAME-schedule")
  [[ $(value_of "$parameters" Way) != "$1" ]] ||
    die 1 "stack $STACK_NAME-schedule needs this; delete_schedule.sh removes it"
}

# require_key_of_bucket KEY: out with one line where the bucket is encrypted with a customer's key, and none is given.
require_key_of_bucket() {
  local key
  [[ -z $1 ]] || return 0
  key=$(try --output text s3api get-bucket-encryption --bucket "$S3_BUCKET_NAME" --expected-bucket-owner "$ACCOUNT" --query \
    'ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.KMSMasterKeyID') || return 0
  [[ -z $key || $key == None || $key == *alias/aws/s3 ]] ||
    die 2 "bucket $S3_BUCKET_NAME is encrypted with the key $key, on which jobs need rights: set S3_KMS_KEY_ARN to its ARN"
}

# delete_what_is_shared OTHER_STACK: removes the network and the rights in the bucket, unless the other stack needs them.
delete_what_is_shared() {
  local status
  status=$(stack_status "$1")
  if [[ -n $status ]]; then
    say "kept, for stack $1 needs them: stacks $STACK_NAME-network and $STACK_NAME-storage"
    return
  fi
  delete_stack "$STACK_NAME-network"
  delete_stack "$STACK_NAME-storage"
  say "kept, with all that is in it: bucket $S3_BUCKET_NAME"
}

# ---------------------------------------------------------------------------------------------------------------------
# Runs. A way to run the job is a file beside this one with these functions:
#
#   plan ARGUMENT...   sets what the others need to run the job with the arguments
#   check_way ROOT     looks at what it needs, for --check
#   estimate           says what it may cost
#   show_plan          prints the calls of aws that the others make
#   start              starts the job, and sets WHAT, its name for the user
#   look               sets STATE, in words, and ENDED where there is no other to come; prints what is new in the log
#   end_as_it_ended    shows the log and what was used, and ends with the exit status of the job
#   clean_up           ends whatever of this run has not ended, even where its start was interrupted

WHAT='' STATE='' ENDED=''

# run_on_aws DEADLINE TOO_LATE ARGUMENT...: runs the job, follows it and ends with its exit status. After so many seconds
# it is given up; TOO_LATE says so, with %d for the seconds.
run_on_aws() {
  local deadline=$1 too_late=$2
  shift 2
  plan "$@"
  estimate
  if [[ -n $DRY_RUN ]]; then
    show_plan
    return
  fi
  end_by clean_up
  start
  follow "$deadline" "$too_late"
  end_as_it_ended
}

# follow DEADLINE TOO_LATE: shows the states until there is no other to come.
follow() {
  local shown=''
  while :; do
    look
    stop_where_asked
    if [[ $STATE != "$shown" ]]; then
      shown=$STATE
      say "$(printf '%5d s  %s' "$SECONDS" "$STATE")"
    fi
    [[ -z $ENDED ]] || break
    ((SECONDS < $1)) || die 124 "$WHAT ${2/\%d/$SECONDS}"
    pause "$POLL_SECONDS"
  done
}
