#!/usr/bin/env bash
# Make a small Debian image from packages, for machines that can reach a Debian mirror but no image registry.
#
#   bootstrap.sh SUITE TAG
#
# Needs root, debootstrap and a Docker daemon. The mirror is debootstrap's own default.
set -euo pipefail

suite=$1
tag=$2
root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT

debootstrap --variant=minbase "$suite" "$root" >"$root.log" 2>&1 || {
    tail -n 5 "$root.log" >&2
    echo "bootstrap.sh: debootstrap $suite failed; the whole log is $root.log" >&2
    exit 1
}
rm -f -- "$root.log"

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
    "$root"/var/lib/apt/lists/* "$root"/var/log/*
# Every machine made from the image gets its own identity.
: >"$root/etc/machine-id"
rm -f -- "$root/etc/hostname" "$root/etc/resolv.conf"

tar --directory="$root" --numeric-owner --create . |
    docker import --change 'CMD ["bash"]' --message "Debian $suite (debootstrap minbase)" - "$tag"
