#!/usr/bin/env bash
# The base of our images where no registry is reached: a small Debian with Python, as a Docker image. Done once; debootstrap
# (which has to be root) keeps what it downloaded beside this project's other build products.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:-slotway/base:bookworm}
suite=bookworm
root=target/image/$suite

if docker image inspect "$tag" >/dev/null 2>&1; then
  exit 0
fi
command -v debootstrap >/dev/null || {
  echo "No registry, no debootstrap: apt-get install debootstrap, or build images/Dockerfile on a machine that reaches one" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || { echo "debootstrap has to be root: sudo make image" >&2; exit 1; }
mkdir -p target/image/packages
rm -rf --one-file-system "$root"
debootstrap --variant=minbase --include=python3,ca-certificates --cache-dir="$PWD/target/image/packages" "$suite" "$root" \
  ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >target/image/debootstrap.log || { tail target/image/debootstrap.log >&2; exit 1; }
# What an action cannot use: a read-only root has no package manager.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
  "$root"/usr/share/locale/* "$root"/var/log/*
tar -C "$root" --numeric-owner -c . | docker import - "$tag" >/dev/null
rm -rf --one-file-system "$root"
echo "built $tag"
