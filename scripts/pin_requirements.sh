#!/usr/bin/env bash
# Resolve each file of requirements and write the exact versions, with the digests of their wheels, to the .txt beside it.
# With NAME.in as an argument only that one. It holds for Python 3.11 and newer; a package without a wheel is an error,
# because installing from source runs what nobody pinned.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

command -v uv >/dev/null || {
  printf "pin_requirements: uv is missing: run 'make setup' first\n" >&2
  exit 1
}

pin() { # pin NAME VENV: NAME.in into NAME.txt
  local resolved
  [[ -z $only || $only == "$1.in" ]] || return 0
  resolved=$(uv pip compile --quiet --universal --python-version 3.11 --no-build --generate-hashes \
    --no-annotate --no-header "$1.in")
  printf "# Exact versions of everything in %s, made from %s.in by 'make requirements'.\n%s\n" "$2" "${1##*/}" "$resolved" >"$1.txt"
}

only=${1:-}
pin requirements .venv
pin bench/requirements .build/bench/venv
pin bench/words-requirements .build/bench/words-venv
pin tests/clients/requirements .build/clients/tools
pin tests/clients/litellm/requirements .build/clients/litellm
