#!/usr/bin/env bash
# Remove what this clone made on this machine, and nothing else: containers, networks and volumes that carry
# its label, images, the Docker daemon if the set-up started it, and the files of this clone that git ignores.
# The download cache stays; its path is printed, because it is worth keeping.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH=$root/.venv/bin:$PATH
label=io.whisper-xeon.project

each() { # each COMMAND...: run it with the lines of standard input as arguments, if there are any
  local lines
  mapfile -t lines
  ((${#lines[@]} == 0)) || "$@" "${lines[@]}" >/dev/null
}

if docker info >/dev/null 2>&1; then
  # The demo of another clone is not ours; tests have no owner, a run begins by removing what the last one left.
  for filter in "io.whisper-xeon.clone=$root" "$label=test" "$label=molecule"; do
    docker ps --all --quiet --filter "label=$filter" | each docker rm --force --volumes
    docker network ls --quiet --filter "label=$filter" | each docker network rm
    docker volume ls --quiet --filter "label=$filter" | each docker volume rm
  done
  # Images that another clone's containers run from stay.
  for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}' 'whisper-xeon/*') whisper-builder; do
    docker image rm "$image" >/dev/null 2>&1 || true
  done
fi

pid=$(cat "$root/.state/dockerd.pid" 2>/dev/null || true)
if [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]]; then
  kill "$pid"
  for _ in {1..30}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
  done
fi

rm -rf "$root/.venv" "$root/.state" "$root/.build" "$root/dist" "$root/artifacts"
find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
rm -rf "$root/.pytest_cache" "$root/.ruff_cache" "$root/.ansible"
echo "clean: done; downloads and compiled MinIO stay in ${WHISPER_XEON_CACHE:-$HOME/.cache/whisper-xeon} (delete it by hand if you want)"
