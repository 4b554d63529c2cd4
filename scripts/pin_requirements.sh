#!/usr/bin/env bash
# Resolve requirements.in in a scratch venv and write what was installed to requirements.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch"
"$scratch/bin/pip" install --quiet --requirement requirements.in
{
  echo "# Exact versions of everything in .venv, made from requirements.in by 'make requirements'."
  "$scratch/bin/pip" freeze
} >requirements.txt
