#!/usr/bin/env bash
# Usage: source set_env_vars.sh
# Summary: Sets what the scripts for S3 and AWS go by. What you have set already stays as it is.
#
# Environment, with the defaults:
#   AWS_DEFAULT_REGION    the region of the bucket and of all that is started (us-east-1)
#   S3_BUCKET_NAME        the bucket for dataset/ and output/ (movielens-pipeline-<account>-<region>, where the AWS
#                         command line can tell your account; movielens-pipeline-<your user name> in a store of your own)
#   IAM_ROLE_ARN          the role that a serverless job runs as; optional (that of create_role_emr_serverless.sh)
#   AWS_ENDPOINT_URL      the address of a store other than AWS that speaks S3; optional (none)
#
# Credentials are not set here. They come from wherever the AWS command line takes them: AWS_ACCESS_KEY_ID and
# AWS_SECRET_ACCESS_KEY, AWS_PROFILE and ~/.aws, or the role of the machine.
#
# Exit status: 0; 2 when it is run and not sourced.

if [ -n "${BASH_VERSION:-}" ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
  if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit
  fi
  printf 'set_env_vars.sh: error: it sets variables of your shell: source set_env_vars.sh\n' >&2
  exit 2
fi

# The region of the bucket and of all that is started
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}"

# The bucket; its name is unique among all buckets of AWS, so it has the account in it
if [ -z "${S3_BUCKET_NAME:-}" ] && [ -n "${AWS_ENDPOINT_URL:-}" ]; then
  S3_BUCKET_NAME="movielens-pipeline-$(id -un)"
elif [ -z "${S3_BUCKET_NAME:-}" ]; then
  S3_BUCKET_NAME="$(AWS_MAX_ATTEMPTS=1 aws sts get-caller-identity --query Account --output text \
    --cli-connect-timeout 5 --cli-read-timeout 5 2>/dev/null)"
  [ -z "$S3_BUCKET_NAME" ] || S3_BUCKET_NAME="movielens-pipeline-$S3_BUCKET_NAME-$AWS_DEFAULT_REGION"
fi
export S3_BUCKET_NAME

# The role that a serverless job runs as, where it is not that of create_role_emr_serverless.sh
export IAM_ROLE_ARN="${IAM_ROLE_ARN:-}"

# A store other than AWS that speaks S3, http://localhost:9000 for instance
[ -z "${AWS_ENDPOINT_URL:-}" ] || export AWS_ENDPOINT_URL

printf 'region %s, bucket %s%s\n' "$AWS_DEFAULT_REGION" \
  "${S3_BUCKET_NAME:-not known, for your account is not: set S3_BUCKET_NAME}" \
  "${AWS_ENDPOINT_URL:+, store $AWS_ENDPOINT_URL}" >&2
if [ -n "${AWS_ACCESS_KEY_ID:-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY:-}" ]; then
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
  [ -z "${AWS_SESSION_TOKEN:-}" ] || export AWS_SESSION_TOKEN
elif [ -z "${AWS_PROFILE:-}" ] && [ ! -e "${AWS_SHARED_CREDENTIALS_FILE:-$HOME/.aws/credentials}" ] &&
  [ ! -e "${AWS_CONFIG_FILE:-$HOME/.aws/config}" ]; then
  printf 'no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE\n' >&2
fi
