#!/usr/bin/env bash
# Usage: create_role_emr_serverless.sh [--delete]
# Summary: Makes what exec_EMR_compute_s3_storage.sh needs: the bucket, a network, the roles of EMR Serverless and of
#          EMR clusters. Running it again brings them up to date.
#
# They are CloudFormation stacks, from infrastructure/; of each the changes are shown. None of them costs anything while
# no job runs, but what lies in the bucket.
#
#   --delete   removes them; the bucket and all in it stays; a schedule on EMR Serverless is to be removed before
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME       the bucket; required; one of yours that is there already is left as it is
#   S3_KMS_KEY_ARN       the key of KMS that the bucket is encrypted with (S3's own; once given, it stays)
#   AWS_DEFAULT_REGION   where
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#
# Exit status: 0; 1 when AWS refuses something, 2 for wrong usage, 129, 130 or 143 when a signal ended it: AWS ends what
# it does with a stack (which one is said), and the next start goes on from there.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  # shellcheck source=scripts/aws.sh
  source "$root/scripts/aws.sh"
  help_if_asked "$@"
  [[ $# == 0 || $* == --delete ]] || die 2 "unknown argument: $*; --help tells which there are"
  require_bucket
  use_aws_cli "$root"
  end_by say_what_goes_on
  find_account
  if [[ ${1:-} == --delete ]]; then
    require_no_schedule serverless
    delete_stack "$STACK_NAME-emr"
    delete_what_is_shared "$STACK_NAME-fargate"
    return
  fi
  local storage roles key
  make_spot_role
  stop_where_asked
  deploy_storage "$root"
  deploy_stack "$STACK_NAME-network" "$root/infrastructure/network.yaml"
  storage=$(stack_outputs "$STACK_NAME-storage")
  key=$(stack_parameters "$STACK_NAME-storage")
  deploy_stack "$STACK_NAME-emr" "$root/infrastructure/emr.yaml" "BucketName=$S3_BUCKET_NAME" \
    "JobPolicy=$(value_of "$storage" JobPolicy)" "KeyArn=$(value_of "$key" KeyArn)"
  roles=$(stack_outputs "$STACK_NAME-emr")
  say "the role of serverless jobs, which exec_EMR_compute_s3_storage.sh finds by itself:"
  printf 'IAM_ROLE_ARN=%s\n' "$(value_of "$roles" ServerlessJobRole)"
}

# make_spot_role: the role by which an account uses spot instances, which EMR may not make itself.
make_spot_role() {
  local complaint
  ! try iam create-service-linked-role --aws-service-name spot.amazonaws.com >/dev/null || return 0
  complaint=$COMPLAINT
  [[ $complaint == *'has been taken'* ]] ||
    try iam get-role --role-name AWSServiceRoleForEC2Spot >/dev/null ||
    die 1 "the role for spot instances could not be made: $(in_one_line "$complaint")"
}

main "$@"
