# shellcheck shell=bash
# Sourced after aws.sh and a way to run: what --check looks at. It changes nothing.

FAILED='' SEEN='' COMPLAINTS='' CALLER='' PARTITION='' REGION=''

# check_run ROOT: prints what a run needs, a line each with a mark: ok; no, a run could not start; ?, it may not be looked
# at. Ends with 0 where nothing is missing, else with 1.
check_run() {
  COMPLAINTS=$(mktemp)
  trap 'rm -f "$COMPLAINTS"' EXIT
  check_region
  if check_caller; then
    check_bucket
    check_way "$1"
  fi
  mark ok cost "$(estimate 2>&1)"
  [[ -z $FAILED ]] || exit 1
  exit 0
}

# mark ok|no|? SUBJECT TEXT
mark() {
  [[ $1 != no ]] || FAILED=yes
  printf '%-2s  %-12s %s\n' "$1" "$2" "$3"
}

# see SERVICE OPERATION ARGUMENT...: sets SEEN to what AWS answers, or, and fails, to what it complains of.
see() {
  SEEN=$(ask "$@" 2>"$COMPLAINTS") && return
  SEEN=$(sed 's/^[^:]*: error: //' "$COMPLAINTS")
  return 1
}

# unseen SUBJECT: marks what see could not: unknown where it is not allowed to look, else missing.
unseen() {
  case $SEEN in
  *AccessDenied* | *'not authorized'*) mark '?' "$1" "not allowed to look: $SEEN" ;;
  *) mark no "$1" "$SEEN" ;;
  esac
}

# check_region: sets REGION.
check_region() {
  REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
  if [[ -n $REGION ]]; then
    mark ok region "$REGION"
  else
    mark no region 'none: set AWS_DEFAULT_REGION'
  fi
}

# check_caller: sets ACCOUNT, CALLER and PARTITION; fails where there are no credentials that AWS takes.
check_caller() {
  if ! see sts get-caller-identity --query '[Account,Arn]'; then
    mark no credentials "$SEEN"
    return 1
  fi
  IFS=$'\t' read -r ACCOUNT CALLER <<<"$SEEN"
  IFS=: read -r _ PARTITION _ <<<"$CALLER"
  mark ok credentials "account $ACCOUNT, $CALLER"
  if [[ $CALLER == *:assumed-role/* ]]; then # policies are those of the role
    CALLER=${CALLER#*:assumed-role/}
    CALLER=arn:$PARTITION:iam::$ACCOUNT:role/${CALLER%%/*}
    ! see iam get-role --role-name "${CALLER##*/}" --query Role.Arn || CALLER=$SEEN # it may have a path
  fi
}

# check_bucket
check_bucket() {
  local complaint
  if complaint=$(head_bucket); then
    mark ok bucket "$S3_BUCKET_NAME, of this account"
  else
    mark no bucket "$(why_no_bucket "$complaint")"
  fi
}

# check_stack ROOT NAME SCRIPT: whether the stack is complete and made of the present template, by the script.
check_stack() {
  local name=$STACK_NAME-$2 template=$1/infrastructure/$2.yaml
  if ! see cloudformation describe-stacks --stack-name "$name" --query 'Stacks[0].StackStatus'; then
    [[ $SEEN != *'does not exist'* ]] || SEEN="$name is not there; $3 makes it"
    unseen stack
  elif [[ $SEEN != *_COMPLETE || $SEEN == *ROLLBACK* && $SEEN != UPDATE_ROLLBACK_COMPLETE ]]; then
    mark no stack "$name is $SEEN; $3 mends it"
  elif [[ ! -e $template ]] || ! see cloudformation get-template --stack-name "$name" --query TemplateBody; then
    mark '?' stack "$name is complete; its version could not be looked at"
  elif [[ $(tr -d '[:space:]' <<<"$SEEN") == "$(tr -d '[:space:]' <"$template")" ]]; then
    mark ok stack "$name, of this version"
  else
    mark no stack "$name is of another version; $3 brings it up to date"
  fi
}

# check_role NAME HINT
check_role() {
  if see iam get-role --role-name "$1" --query Role.RoleName; then
    mark ok role "$1"
  else
    [[ $SEEN != *NoSuchEntity* && $SEEN != *'cannot be found'* ]] || SEEN="$1 is not there; $2"
    unseen role
  fi
}

# check_release: whether there is EMR's release, with a Spark that runs the job.
check_release() {
  if ! see emr describe-release-label --release-label "$EMR_RELEASE_LABEL" \
    --query "Applications[?Name=='Spark'].Version"; then
    unseen release
  elif ((${SEEN%%.*} >= 4)); then
    mark ok release "$EMR_RELEASE_LABEL, Spark $SEEN"
  else
    mark no release "$EMR_RELEASE_LABEL has Spark $SEEN; the job needs 4.0"
  fi
}

# check_quota SERVICE CODE VCPU NAME: whether the account may have so many vCPUs, and says how many.
check_quota() {
  if ! see service-quotas get-service-quota --service-code "$1" --quota-code "$2" --query Quota.Value; then
    if [[ $SEEN == *NoSuchResource* ]]; then # nobody asked for another than all have
      see service-quotas get-aws-default-service-quota --service-code "$1" --quota-code "$2" --query Quota.Value || true
    fi
  fi
  if [[ ! $SEEN =~ ^[0-9.]+$ ]]; then
    unseen quota
  elif ((${SEEN%%.*} >= $3)); then
    mark ok quota "${SEEN%%.*} vCPU $4; a run takes up to $3"
  else
    mark no quota "${SEEN%%.*} vCPU $4, and a run takes up to $3; more of $2 of $1 can be had from Service Quotas"
  fi
}

# check_permissions SERVICE ACTION...: whether the caller's policies allow the actions, by simulation; the roles are passed
# to the service.
check_permissions() {
  local service=$1 action resource of_one denied='' names
  shift
  if [[ $CALLER == *:root ]]; then
    mark ok permissions 'all of them, of the root user'
    return
  fi
  while IFS=$'\t' read -r resource names; do
    read -ra of_one <<<"$names"
    # shellcheck disable=SC2054 # the commas are the command line's
    if ! see iam simulate-principal-policy --policy-source-arn "$CALLER" --resource-arns "$resource" \
      --context-entries "ContextKeyName=iam:PassedToService,ContextKeyValues=$service,ContextKeyType=string" \
      --action-names "${of_one[@]}" --query "EvaluationResults[?EvalDecision!='allowed'].EvalActionName"; then
      mark '?' permissions "not allowed to simulate: $SEEN"
      return
    fi
    [[ -z $SEEN ]] || denied+=" ${SEEN//$'\t'/ }"
  done < <(for action in "$@"; do
    printf '%s\t%s\n' "$(resource_of "$action")" "$action"
  done | sort | awk -F '\t' '$1 != last { if (NR > 1) print line; last = $1; line = $1 "\t" }
    { line = line $2 " " } END { print line }')
  if [[ -z $denied ]]; then
    mark ok permissions "all $# that a run takes"
  else
    mark no permissions "denied:$denied"
  fi
}

# resource_of ACTION: prints what a run does it to, as an ARN; * where the action knows none.
resource_of() {
  local arn=arn:$PARTITION here
  here=$REGION:$ACCOUNT
  case $1 in
  s3:ListBucket) printf '%s:s3:::%s' "$arn" "$S3_BUCKET_NAME" ;;
  s3:PutObject) printf '%s:s3:::%s/code/check' "$arn" "$S3_BUCKET_NAME" ;;
  s3:GetObject) printf '%s:s3:::%s/logs/check' "$arn" "$S3_BUCKET_NAME" ;;
  cloudformation:*) printf '%s:cloudformation:%s:stack/%s-network/check' "$arn" "$here" "$STACK_NAME" ;;
  iam:PassRole) printf '%s:iam::%s:role/%s' "$arn" "$ACCOUNT" "${PASSED_ROLE##*/}" ;;
  elasticmapreduce:ListClusters | elasticmapreduce:RunJobFlow | ecs:ListTasks) printf '*' ;;
  emr-serverless:ListApplications | emr-serverless:CreateApplication) printf '*' ;;
  elasticmapreduce:*) printf '%s:elasticmapreduce:%s:cluster/j-CHECK' "$arn" "$here" ;;
  emr-serverless:GetJobRun | emr-serverless:CancelJobRun) printf '%s:emr-serverless:%s:/applications/check/jobruns/check' "$arn" "$here" ;;
  emr-serverless:*) printf '%s:emr-serverless:%s:/applications/check' "$arn" "$here" ;;
  ecs:RunTask) printf '%s:ecs:%s:task-definition/%s' "$arn" "$here" "$STACK_NAME" ;;
  ecs:*) printf '%s:ecs:%s:task/%s/check' "$arn" "$here" "$STACK_NAME" ;;
  logs:*) printf '%s:logs:%s:log-group:/ecs/%s:log-stream:check' "$arn" "$here" "$STACK_NAME" ;;
  esac
}
