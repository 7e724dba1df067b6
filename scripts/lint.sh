#!/usr/bin/env bash
# Usage: scripts/lint.sh
# Summary: Runs ruff, mypy, shellcheck, shfmt, hadolint, cfn-lint, checkov, check-jsonschema and zizmor over the project,
#          in .venv-dev, which it makes when it is missing.
#
# Exit status: 0 when all is clean.
set -euo pipefail

main() {
  local root
  root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  # shellcheck source=scripts/common.sh
  source "$root/scripts/common.sh"
  # shellcheck source=scripts/environments.sh
  source "$root/scripts/environments.sh"
  help_if_asked "$@"
  make_environment "$root/.venv-dev" "$root/requirements/dev.txt"
  make_environment "$root/.venv-spark" "$root/requirements.txt" # mypy reads the types of what is installed there
  cd "$root"
  local scripts=(*.sh scripts/*.sh .ci/run)
  export PATH="$root/.venv-dev/bin:$PATH"
  ruff check .
  ruff format --check .
  mypy --python-executable "$root/.venv-spark/bin/python"
  shellcheck -x "${scripts[@]}"
  shfmt -d -i 2 "${scripts[@]}"
  hadolint Dockerfile
  cfn-lint infrastructure/*.yaml
  checkov --quiet --compact --skip-download --framework cloudformation --directory infrastructure
  check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml docs/nightly-workflow.yml
  zizmor --quiet --offline .github/workflows docs/nightly-workflow.yml
}

main "$@"
