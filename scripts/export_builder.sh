#!/usr/bin/env bash
# Second half of `make builder`: put what the builder made of .build/context where the Dockerfile at the top takes it
# from, with the signatures that dist/ has. Docker has each step already, so this takes seconds.
#
# That directory is named for what docker prints where it is missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
made=.build/run-make-builder-first

rm -rf "$made" "$made.new"
docker build --quiet --target=output --output="type=local,dest=$made.new" .build/context
for package in "$made.new"/release_artifacts/whisper_*_xeon; do
  signature=dist/${package##*/}/manifest.json.sig
  if [[ -f $signature ]]; then
    cp "$signature" "$package/"
  fi
done
mv "$made.new" "$made"
printf 'builder: docker build -t whisper-builder . packs %s\n' "$(cd "$made/release_artifacts" && echo whisper_*_xeon)"
