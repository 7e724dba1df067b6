#!/usr/bin/env bash
# Usage: source set_env_vars.sh
# Summary: Sets what the scripts for S3 and AWS go by. What you have set already stays as it is.
#
# Environment, with the defaults:
#   AWS_DEFAULT_REGION    the region of the bucket and of all that is started (us-east-1)
#   S3_BUCKET_NAME        the bucket for dataset/ and output/ (movielens-pipeline-<your user name>)
#   KEY_NAME              the EC2 key pair to reach a cluster by ssh; optional (none)
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

# The bucket; its name is unique among all buckets of AWS
export S3_BUCKET_NAME="${S3_BUCKET_NAME:-movielens-pipeline-$(id -un)}"

# The EC2 key pair to reach a cluster by ssh
export KEY_NAME="${KEY_NAME:-}"

# The role that a serverless job runs as, where it is not that of create_role_emr_serverless.sh
export IAM_ROLE_ARN="${IAM_ROLE_ARN:-}"

# A store other than AWS that speaks S3, http://localhost:9000 for instance
[ -z "${AWS_ENDPOINT_URL:-}" ] || export AWS_ENDPOINT_URL

printf 'region %s, bucket %s%s\n' "$AWS_DEFAULT_REGION" "$S3_BUCKET_NAME" \
  "${AWS_ENDPOINT_URL:+, store $AWS_ENDPOINT_URL}" >&2
if [ -n "${AWS_ACCESS_KEY_ID:-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY:-}" ]; then
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
  [ -z "${AWS_SESSION_TOKEN:-}" ] || export AWS_SESSION_TOKEN
elif [ -z "${AWS_PROFILE:-}" ] && [ ! -e "${AWS_SHARED_CREDENTIALS_FILE:-$HOME/.aws/credentials}" ] &&
  [ ! -e "${AWS_CONFIG_FILE:-$HOME/.aws/config}" ]; then
  printf 'no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE\n' >&2
fi
