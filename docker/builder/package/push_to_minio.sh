#!/usr/bin/env bash
# Copy this package into a bucket of MinIO or another S3 store, as releases/<release id>/<package>/.
#
# Works with `mc` or the `aws` CLI, whichever is installed. Environment:
#   MINIO_ENDPOINT    for example https://minio.example.com:9000
#   MINIO_ACCESS_KEY  MINIO_SECRET_KEY  (never handed on as an argument)
#   MINIO_BUCKET      default whisper-artifacts; it must exist
#   WHISPER_SIGNING_KEY_FILE  signs the release (openssl, ed25519); without it, manifest.json.sig beside this script is taken
# A release is written once: one that is there already is left alone. Its signature there is replaced by one that
# WHISPER_SIGNING_KEY_FILE makes, and by manifest.json.sig only if there is none. Which release hosts, containers and
# downloads take is said by channels/<channel>.json in the same bucket; this script shows it, never changes it, and names
# the command that does.
set -euo pipefail

fail() {
    echo "push_to_minio.sh: $*" >&2
    exit 1
}

cd -- "$(dirname -- "$(readlink -f -- "$0")")"
for name in MINIO_ENDPOINT MINIO_ACCESS_KEY MINIO_SECRET_KEY; do
    [ -n "${!name:-}" ] || fail "$name is not set: export it and run again"
done
bucket=${MINIO_BUCKET:-whisper-artifacts}
[ -f manifest.json ] || fail "no manifest.json in $PWD: this is not a package"

# manifest.json is always written the same way, one key a line, so these lines need no JSON parser.
field() {
    sed -n "s/^ \"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" manifest.json
}
release_id=$(field release_id)
package=$(field package)
checksums=$(awk -F '"' '/^   "path": /{path = $4} /^   "sha256": /{print $4 "  " path}' manifest.json)
[ -n "$release_id" ] && [ -n "$package" ] && [ -n "$checksums" ] || fail "manifest.json was altered: fetch the package again"
sha256sum --check --strict --quiet <<<"$checksums" || fail "the files above do not match manifest.json: fetch the package again"
extra=$(find . ! -type d ! -name manifest.json ! -name manifest.json.sig -printf '%P\n' | sort | comm -23 - <(cut -c 67- <<<"$checksums" | sort))
[ -z "$extra" ] || fail "not in manifest.json: $extra"

# Hosts and containers take only what is signed. The form is that of app/whisper_package/signature.py of whisper-xeon.
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
signature=$PWD/manifest.json.sig
digest=$(sha256sum <manifest.json | cut -c -64)
if [ -n "${WHISPER_SIGNING_KEY_FILE:-}" ]; then
    model=${package#whisper_}
    printf 'whisper-xeon release 1\nmodel %s\nrelease %s\nmanifest_sha256 %s\nserial %s\n' "${model%_xeon}" "$release_id" \
        "$digest" "$(date -u +%Y%m%d%H%M%S)" >"$scratch/text"
    openssl pkeyutl -sign -rawin -inkey "$WHISPER_SIGNING_KEY_FILE" -in "$scratch/text" -out "$scratch/raw" ||
        fail "WHISPER_SIGNING_KEY_FILE does not sign: it must be a private ed25519 key, as \`whisper_store keys\` of whisper-xeon makes it"
    signature=$scratch/manifest.json.sig
    { cat "$scratch/text" && printf 'signature %s\n' "$(base64 -w0 "$scratch/raw")"; } >"$signature"
fi
[ -f "$signature" ] || fail "this package is not signed, and no host takes it: set WHISPER_SIGNING_KEY_FILE to the file of your key"
[[ $(<"$signature") == *$'\n'"manifest_sha256 $digest"$'\n'* ]] ||
    fail "manifest.json.sig is not the signature of this manifest.json: sign it again, with WHISPER_SIGNING_KEY_FILE"

target=$bucket/releases/$release_id/$package
if command -v mc >/dev/null; then
    # mc takes credentials from its configuration (in the environment it stumbles over a colon in a secret), so it gets
    # one of its own that only this user can read and that goes when the script ends.
    export MC_CONFIG_DIR=$scratch/mc
    mkdir "$MC_CONFIG_DIR"
    quoted() { local text=${1//\\/\\\\}; printf '"%s"' "${text//\"/\\\"}"; }
    printf '{"version": "10", "aliases": {"whisper": {"url": %s, "accessKey": %s, "secretKey": %s, "api": "S3v4", "path": "on"}}}' \
        "$(quoted "$MINIO_ENDPOINT")" "$(quoted "$MINIO_ACCESS_KEY")" "$(quoted "$MINIO_SECRET_KEY")" >"$MC_CONFIG_DIR/config.json"
    present() { mc stat "whisper/$1" >/dev/null 2>&1; }
    put() { mc cp --quiet "$1" "whisper/$2" >/dev/null; }
    channels() { mc ls "whisper/$bucket/channels/" | awk '{print $NF}'; }
    show() { mc cat "whisper/$1"; }
elif command -v aws >/dev/null; then
    export AWS_ACCESS_KEY_ID=$MINIO_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$MINIO_SECRET_KEY
    export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}
    # Stores other than AWS refuse the checksums that newer clients add by themselves.
    export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
    # It lists by prefix, so that the signature of a manifest would do for it.
    present() { aws --endpoint-url "$MINIO_ENDPOINT" s3 ls "s3://$1" 2>/dev/null | grep " ${1##*/}\$" >/dev/null; }
    put() { aws --endpoint-url "$MINIO_ENDPOINT" s3 cp --only-show-errors "$1" "s3://$2"; }
    channels() { aws --endpoint-url "$MINIO_ENDPOINT" s3 ls "s3://$bucket/channels/" | awk '{print $NF}'; }
    show() { aws --endpoint-url "$MINIO_ENDPOINT" s3 cp --quiet "s3://$1" -; }
else
    fail "neither mc nor aws is installed: install one of them (pip install awscli)"
fi

if present "$target/manifest.json"; then
    if [ "$signature" != "$PWD/manifest.json.sig" ] || ! present "$target/manifest.json.sig"; then
        put "$signature" "$target/manifest.json.sig"
    fi
    echo "$package release $release_id is in $bucket already"
else
    cut -c 67- <<<"$checksums" | while IFS= read -r path; do
        echo "$path"
        put "$path" "$target/$path"
    done
    put "$signature" "$target/manifest.json.sig"
    # The manifest comes last: whoever finds it finds the whole release, signed.
    put manifest.json "$target/manifest.json"
    echo "$package release $release_id is in $bucket"
fi

# A bucket without any channel is a normal, empty answer. Others may write there: what means something to a terminal or to
# this shell is neither taken as a name nor shown.
names=$(channels 2>/dev/null | LC_ALL=C grep -xE '[a-z0-9][a-z0-9._-]{0,62}[.]json' || true)
[ -n "$names" ] || echo "no channel names a release yet"
for name in $names; do
    echo "channels/$name:"
    content=$(show "$bucket/channels/$name" | LC_ALL=C tr -cd '[:print:]\n')
    echo "$content"
    [ "$name" != stable.json ] || [[ $content != *$release_id* ]] || current=yes
done
echo "Hosts, containers and downloads take what their channel names; this script changes no channel."
[ -n "${current:-}" ] || echo "stable gets this release by: PYTHONPATH=app python -m whisper_store promote $release_id stable"
