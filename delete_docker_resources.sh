#!/usr/bin/env bash
# Usage: delete_docker_resources.sh
# Summary: Removes what create_docker_resources.sh made, and stops its tasks. The bucket and all that is in it stays.
#          A schedule is to be removed before, by delete_schedule.sh.
#
# Environment (set_env_vars.sh has defaults):
#   S3_BUCKET_NAME       the bucket; required, and kept
#   AWS_DEFAULT_REGION   where
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#
# Exit status: 0, also where nothing is left to remove; 1 when AWS refuses something or there is a schedule; 2 for wrong
# usage, 129, 130 or 143 when a signal ended it: AWS ends what it does with a stack (which one is said), and the next
# start goes on from there.
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
  [[ $# == 0 ]] || die 2 "unknown argument: $*; --help tells what it goes by"
  require_bucket
  use_aws_cli "$root"
  end_by say_what_goes_on
  require_no_schedule fargate
  local outputs tasks task
  let_stack_rest "$STACK_NAME-fargate" # what it is made of is not known before
  outputs=$(stack_outputs "$STACK_NAME-fargate")
  if [[ -n $outputs ]]; then
    tasks=$(ask ecs list-tasks --cluster "$STACK_NAME" --query 'taskArns')
    for task in $tasks; do
      ask ecs stop-task --cluster "$STACK_NAME" --task "$task" --reason 'delete_docker_resources.sh' >/dev/null
      in_time 600 task_is_stopped "$task" || die 1 "task ${task##*/} does not stop"
      say "task ${task##*/} is stopped"
    done
  fi
  delete_stack "$STACK_NAME-fargate"
  delete_stack "$STACK_NAME-registry"
  delete_what_is_shared "$STACK_NAME-emr"
}

# task_is_stopped TASK
task_is_stopped() {
  local status
  status=$(ask ecs describe-tasks --cluster "$STACK_NAME" --tasks "$1" --query 'tasks[0].lastStatus') || exit
  [[ $status == STOPPED || $status == None ]] # the second of one that AWS has forgotten
}

main "$@"
