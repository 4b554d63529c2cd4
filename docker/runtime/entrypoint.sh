#!/usr/bin/env bash
# Start of the container: see that the volume holds the package of WHISPER_MODEL_SIZE, signed and byte for byte, and
# become the service, so that signals and exit status are its own.
#
#   entrypoint.sh [OPTION...]   serve; options are the service's (--self-test, --help, ...)
#   entrypoint.sh --provide     see that the package is there, and end: what must be right before anything is restarted
#   entrypoint.sh COMMAND...    run that instead, for example: download_whisper_artifacts.py medium
#
# A package that is missing is downloaded; one that none of WHISPER_TRUSTED_KEYS signed, or that differs from its
# manifest, is never served: it is downloaded again when a store is configured, else the start ends with status 6 or 4.
# A whole package needs no store and none of its settings. One in the layout of the old system is neither served nor
# replaced. Exit status before the service runs: 2 for a setting, 3 for the old layout, else the download command's.
set -euo pipefail

# First of all, because process 1 is deaf to a signal that it has no trap for.
child=
trap 'if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null; wait "$child"; fi; exit 143' TERM INT

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$here/scripts:$PATH

# compose.yml names these files always, since docker-compose 1.29 cannot leave a variable out, and mounts /dev/null where
# nobody named one. Whatever else is there stays named, even a directory: a wrong path must end the start, not open the
# service to everybody.
for name in AWS_CA_BUNDLE "${!MINIO_@}" "${!WHISPER_@}"; do
  if [[ ${!name:-} == /run/secrets/* && -c ${!name} ]]; then
    unset "$name"
  fi
done

if [[ $# -gt 0 && $1 != -* ]]; then
  exec "$@"
fi

# Bash runs a trap only between commands or while it waits.
run() {
  "$@" &
  child=$!
  local status=0
  wait "$child" || status=$?
  child=
  return "$status"
}

provide_package() {
  local settings model folder status=0
  # What cannot be a model's name ends here, with one line, like any other setting that is not allowed.
  settings=$(python3 -m whisper_xeon --check-config 2>&1) || status=$?
  if ((status)); then
    printf '%s\n' "$settings" >&2
    return "$status"
  fi
  model=$(sed -n 's/^WHISPER_MODEL_SIZE=//p' <<<"$settings")
  folder=$(sed -n 's/^WHISPER_ARTIFACTS_DIR=//p' <<<"$settings")
  package=$folder/whisper_${model}_xeon
  # Of a package that is missing it says which ones are there.
  run python3 "$here/check_package.py" "$folder" "$model" || status=$?
  case $status in
    4 | 6) [[ ! -d $package || -n ${MINIO_ENDPOINT:-} ]] || return "$status" ;;
    *) return "$status" ;;
  esac
  printf 'whisper-xeon: downloading it\n' >&2
  run download_whisper_artifacts.py "$model"
}

# Whatever else it is given loads the package, or is not understood.
case ${1:-} in
  -h | --help | --version | --check-config) ;;
  --provide)
    provide_package
    exit
    ;;
  *)
    provide_package
    # For other programs that somebody starts from here: the service finds its libraries by itself.
    export LD_LIBRARY_PATH=$package${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    ;;
esac

# What the download needed is nothing that the service should know.
unset "${!MINIO_@}" "${!WHISPER_TRUSTED_KEYS@}" WHISPER_SIGNED_DAYS
if (($#)); then
  exec python3 -m whisper_xeon "$@"
fi
# The service takes what arrives while Python starts as soon as it has handlers; process 1 would lose it.
exec env --block-signal=TERM --block-signal=INT python3 -m whisper_xeon
