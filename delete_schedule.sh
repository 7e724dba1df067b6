#!/usr/bin/env bash
# Usage: delete_schedule.sh
# Summary: Removes what create_schedule.sh made. A run that is under way goes on to its end.
#
# Environment (set_env_vars.sh has defaults):
#   AWS_DEFAULT_REGION   where
#   STACK_NAME           what the names of the stacks begin with (movielens-pipeline)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...
#                        credentials, from wherever the AWS command line takes them
#
# Exit status: 0, also where nothing is left to remove; 1 when AWS refuses something, 2 for wrong usage, 129, 130 or 143
# when a signal ended it: AWS ends what it does with a stack (which one is said), and the next start goes on from there.
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
  use_aws_cli "$root"
  end_by say_what_goes_on
  delete_stack "$STACK_NAME-schedule"
}

main "$@"
