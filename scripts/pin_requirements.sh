#!/usr/bin/env bash
# Resolve each requirements.in in a scratch venv and write what was installed to the requirements.txt beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pin() { # pin DIRECTORY VENV
  local scratch
  scratch=$(mktemp -d)
  python3 -m venv "$scratch"
  "$scratch/bin/pip" install --quiet --requirement "$1/requirements.in"
  {
    echo "# Exact versions of everything in $2, made from requirements.in by 'make requirements'."
    "$scratch/bin/pip" freeze
  } >"$1/requirements.txt"
  rm -rf "$scratch"
}

pin . .venv
pin bench .build/bench/venv
pin tests/clients .build/clients/tools
pin tests/clients/litellm .build/clients/litellm
