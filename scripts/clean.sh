#!/usr/bin/env bash
# Remove what this clone made on this machine, and nothing else: containers, networks and volumes that carry its label,
# images, the Docker daemon if the set-up started it, and the files of this clone that git ignores. The tests' and
# molecule's containers have no owner: a run begins by removing what the last one left, whoever ran it.
# What is shared or worth keeping stays: Debian packages, downloads, Docker's build cache.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH=$root/.venv/bin:$PATH
label=io.whisper-xeon.project
stayed=()

remove() { # remove WHAT COMMAND...: run the command on each line of standard input, go on when one fails
  local what=$1 item
  shift
  while read -r item; do
    "$@" "$item" >/dev/null 2>&1 || stayed+=("$what $item")
  done
}

if docker info >/dev/null 2>&1; then
  for filter in "io.whisper-xeon.clone=$root" "$label=test" "$label=molecule"; do
    remove container docker rm --force --volumes < <(docker ps --all --quiet --filter "label=$filter")
    remove network docker network rm < <(docker network ls --quiet --filter "label=$filter")
    remove volume docker volume rm < <(docker volume ls --quiet --filter "label=$filter")
  done
  # Images that another clone's containers run from stay, and that is no fault.
  for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -E '^whisper-(xeon|builder)'); do
    docker image rm "$image" >/dev/null 2>&1 || true
  done
elif command -v docker >/dev/null; then
  stayed+=("containers, networks, volumes and images, because no Docker daemon answers: run make setup, then make clean again")
fi

pid=$(cat "$root/.state/dockerd.pid" 2>/dev/null || true)
if [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]]; then
  kill "$pid"
  for _ in {1..30}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
  done
fi

if ((${#stayed[@]})); then
  printf 'clean: these stay: %s\n' "${stayed[@]}" >&2
  echo "clean: .state with the demo's credentials is kept for them" >&2
  exit 1
fi
rm -rf "$root/.venv" "$root/.state" "$root/.build" "$root/dist" "$root/artifacts"
find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
rm -rf "$root/.pytest_cache" "$root/.ruff_cache" "$root/.ansible"
echo "clean: done; downloads and compiled MinIO stay in ${WHISPER_XEON_CACHE:-$HOME/.cache/whisper-xeon} (delete it by hand if you want)"
