#!/usr/bin/env bash
# Build once more, in the builder's image, what lies in its /built, with everything else that must not matter: where source
# and build lie, the host's name, the day, the time zone, the language, the user's name, the umask, the number of jobs, no
# compiler cache.
# Prints the digests of both.
set -euo pipefail

mkdir -p /somewhere/else
cc -shared -fPIC -O1 "$(dirname -- "$0")/elsewhere.c" -o /somewhere/elsewhere.so -ldl
export LD_PRELOAD=/somewhere/elsewhere.so
if (($(date +%s) < $(stat -c %Y /somewhere/elsewhere.so) + 30000000)); then
  echo "again.sh: the clock was not moved" >&2
  exit 1
fi
if [ "$(uname --nodename)" != elsewhere ]; then
  echo "again.sh: the host was not renamed" >&2
  exit 1
fi
export TZ=Asia/Kathmandu LC_ALL=C USER=nobody HOME=/nonexistent
export CCACHE_DISABLE=1 JOBS=3 BUILD_DIR=/somewhere/else/objects
umask 077
cp -R /src /somewhere/else/tree
if ! /builder/build.sh /somewhere/else/tree /somewhere/again >/somewhere/log 2>&1; then
  tail -n 40 /somewhere/log >&2
  exit 1
fi
digests() { (cd "$1" && find . -type f ! -name LICENSE -exec sha256sum {} + | sort -k 2); }
digests /built
echo
digests /somewhere/again
rm -rf /somewhere
