#!/usr/bin/env bash
# Every linter over every file of its kind that git knows or would add.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

status=0
run() {
  printf 'lint: %s\n' "$1"
  "${@:2}" || status=1
}
files() { git ls-files --cached --others --exclude-standard -- "$@"; }

mapfile -t shell_files < <(files '*.sh' .ci/run)
mapfile -t dockerfiles < <(files '*Dockerfile')
mapfile -t kernels < <(files 'kernels/*.cpp' 'kernels/*.h')

run "ruff check" ruff check --quiet .
run "ruff format" ruff format --quiet --check .
run "mypy" mypy --no-error-summary
run "shellcheck" shellcheck "${shell_files[@]}"
run "hadolint" hadolint "${dockerfiles[@]}"
run "clang-format" clang-format --dry-run --Werror "${kernels[@]}"
run "yamllint" yamllint --strict .
run "ansible-lint" ansible-lint --offline --strict -q
exit "$status"
