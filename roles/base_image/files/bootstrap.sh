#!/usr/bin/env bash
# Make a small Debian image from packages, for machines that can reach a Debian mirror but no image registry.
#
#   bootstrap.sh SUITE TAG
#
# Needs root, debootstrap, Debian's keyring and a Docker daemon. The mirror is debootstrap's own default; the image has what
# the suite's security and other updates have by now, and gets later ones by apt-get.
set -euo pipefail

suite=$1
tag=$2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
root=$(mktemp -d)
# Nobody else can have put a file or a link of this name there before.
log=$(mktemp --tmpdir whisper-xeon-bootstrap.XXXXXXXX)
trap 'rm -rf -- "$root"' EXIT

logged() { # logged WHAT COMMAND...
    "${@:2}" >>"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        echo "bootstrap.sh: $1 failed; the whole log is $log" >&2
        exit 1
    }
}

# Without the option debootstrap only warns where it has no key, and installs what anybody on the way sent.
logged "debootstrap $suite" debootstrap --variant=minbase --force-check-gpg --keyring="$keyring" "$suite" "$root"

read -r _ mirror _ <"$root/etc/apt/sources.list"
rm -- "$root/etc/apt/sources.list"
suites="$suite $suite-updates"
if [ "$suite" = sid ] || [ "$suite" = unstable ]; then
    suites=$suite # everything goes there first
else
    cat >"$root/etc/apt/sources.list.d/security.sources" <<SOURCES
Types: deb
URIs: ${mirror%/*}/debian-security
Suites: $suite-security
Components: main
Signed-By: $keyring
SOURCES
fi
cat >"$root/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suites
Components: main
Signed-By: $keyring
SOURCES
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
logged "reading the updates of $suite" inside apt-get update --error-on=any
logged "installing the updates of $suite" inside apt-get dist-upgrade --yes --no-install-recommends
rm -f -- "$log"

# As in Debian's own slim images: nothing that only a person at a terminal reads, now and for packages to come.
cat >"$root/etc/dpkg/dpkg.cfg.d/90-slim" <<'EXCLUDES'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
EXCLUDES
find "$root/usr/share/doc" -mindepth 2 ! -name copyright ! -type d -delete
rm -rf -- "$root"/usr/share/{info,locale,man}/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
    "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
find "$root/var/log" -type f -delete
# Every machine made from the image gets its own identity.
: >"$root/etc/machine-id"
rm -f -- "$root/etc/hostname" "$root/etc/resolv.conf"

tar --directory="$root" --numeric-owner --create . |
    docker import --change 'CMD ["bash"]' --message "Debian $suite (debootstrap minbase)" - "$tag"
