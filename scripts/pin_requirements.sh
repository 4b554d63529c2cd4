#!/usr/bin/env bash
# Resolve each file of requirements in a scratch venv and write what was installed to the requirements.txt beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pin() { # pin NAME VENV: NAME.in into NAME.txt
  local scratch
  scratch=$(mktemp -d)
  python3 -m venv "$scratch"
  "$scratch/bin/pip" install --quiet --requirement "$1.in"
  {
    echo "# Exact versions of everything in $2, made from ${1##*/}.in by 'make requirements'."
    "$scratch/bin/pip" freeze
  } >"$1.txt"
  rm -rf "$scratch"
}

pin requirements .venv
pin bench/requirements .build/bench/venv
pin bench/words-requirements .build/bench/words-venv
pin tests/clients/requirements .build/clients/tools
pin tests/clients/litellm/requirements .build/clients/litellm
