#!/usr/bin/env bash
# Usage: create_docker_resources.sh
# Summary: Makes what run_docker_fargate.sh needs: the bucket, a network, the registry with the image, the ECS cluster,
#          the task and its roles. Running it again brings them up to date, with the image of the present files, and the
#          schedule of create_schedule.sh where there is one.
#
# They are CloudFormation stacks, from infrastructure/; of each the changes are shown. While no task runs they cost what
# lies in the bucket, and the image in the registry: some 0.02 USD a month.
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME       the bucket; required; one of yours that is there already is left as it is
#   S3_KMS_KEY_ARN       the key of KMS that the bucket is encrypted with (S3's own; once given, it stays)
#   AWS_DEFAULT_REGION   where
#   FARGATE_TIME_LIMIT   after which time a task ends by itself: 90s, 30m or 2h (2h)
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#
# Exit status: 0; 1 when AWS or docker refuse something, 2 for wrong usage, 129, 130 or 143 when a signal ended it: AWS
# ends what it does with a stack (which one is said), and the next start goes on from there.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  # shellcheck source=scripts/containers.sh
  source "$root/scripts/containers.sh"
  # shellcheck source=scripts/aws.sh
  source "$root/scripts/aws.sh"
  # shellcheck source=scripts/schedule.sh
  source "$root/scripts/schedule.sh"
  help_if_asked "$@"
  [[ $# == 0 ]] || die 2 "unknown argument: $*; --help tells what it goes by"
  require_bucket
  use_aws_cli "$root"
  end_by finish
  find_account
  FARGATE_TIME_LIMIT=${FARGATE_TIME_LIMIT:-2h}
  seconds_in FARGATE_TIME_LIMIT >/dev/null
  local image=movielens_pipeline:fargate storage registry schedule repository base tag digest architecture=X86_64
  LOGGED_IN=''
  base=$(newest_base "$root")
  stop_where_asked
  build_image "$root" "$image" embedded "$base"
  stop_where_asked
  [[ $(docker image inspect --format '{{.Architecture}}' "$image") != arm64 ]] || architecture=ARM64
  deploy_storage "$root"
  deploy_stack "$STACK_NAME-network" "$root/infrastructure/network.yaml"
  deploy_stack "$STACK_NAME-registry" "$root/infrastructure/registry.yaml" "RepositoryName=$STACK_NAME"
  registry=$(stack_outputs "$STACK_NAME-registry")
  repository=$(value_of "$registry" RepositoryUri)
  # of the same files there is an image for each base image and each architecture
  tag=$(cat "$root/VERSION")-$(made_of "$image")-$(tr '[:upper:]' '[:lower:]' <<<"$architecture")
  push_image "$image" "$repository" "$tag"
  stop_where_asked
  digest=$(digest_of "$tag")
  storage=$(stack_outputs "$STACK_NAME-storage")
  deploy_stack "$STACK_NAME-fargate" "$root/infrastructure/fargate.yaml" "Name=$STACK_NAME" \
    "Image=$repository@$digest" "Architecture=$architecture" "TimeLimit=$FARGATE_TIME_LIMIT" \
    "RepositoryArn=$(value_of "$registry" RepositoryArn)" "JobPolicy=$(value_of "$storage" JobPolicy)"
  schedule=$(stack_outputs "$STACK_NAME-schedule")
  [[ $(value_of "$schedule" Way) != fargate ]] || deploy_fargate_schedule "$root"
  say "ready: run_docker_fargate.sh; delete_docker_resources.sh removes all of this"
}

# newest_base ROOT: gets the newest base image, with what was mended in it, and prints its id.
newest_base() {
  local name
  name=$(sed -n 's/^FROM \([^ ]*\) AS base$/\1/p' "$1/Dockerfile")
  docker pull --quiet "$name" >/dev/null 2>&1 || say "$name could not be looked for; an earlier one is taken"
  docker image inspect --format '{{.Id}}' "$name" 2>/dev/null || true
}

# push_image IMAGE REPOSITORY TAG: brings the image into the registry, unless it is there.
push_image() {
  local image=$1 repository=$2 tag=$3 digest password
  digest=$(digest_of "$tag")
  [[ -z $digest ]] || return 0
  password=$(ask ecr get-login-password)
  LOGGED_IN=${repository%%/*} # for finish, however this ends
  docker login --username AWS --password-stdin "${repository%%/*}" <<<"$password" >/dev/null ||
    fail_or_stop "docker login ${repository%%/*}"
  docker tag "$image" "$repository:$tag"
  say "pushing $repository:$tag"
  docker push --quiet "$repository:$tag" >/dev/null || fail_or_stop "docker push $repository:$tag"
  docker rmi "$repository:$tag" >/dev/null
}

# fail_or_stop COMMAND: ends where a command of Docker has failed, or a signal has ended it.
fail_or_stop() {
  stop_where_asked
  die 1 "$1 failed, for the reason above"
}

# finish: leaves no password of the registry, and says what AWS goes on with.
finish() {
  [[ -z $LOGGED_IN ]] || docker logout "$LOGGED_IN" >/dev/null || true
  say_what_goes_on
}

# digest_of TAG: prints the digest of the image in the registry; nothing where there is none.
digest_of() {
  ask ecr list-images --repository-name "$STACK_NAME" --query "imageIds[?imageTag=='$1'].imageDigest"
}

main "$@"
