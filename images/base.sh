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

# The first mirror that has the suite and answers soon: the given one alone, or this machine's own (a pinned snapshot may be
# out of reach), or Debian's. It is asked by wget, as debootstrap does.
own=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  sed -nE 's/^URIs:[[:space:]]*//p; s/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' |
  tr -s '[:space:]' '\n' | sed 's,/*$,,' | grep -E '^https?://' | awk '!seen[$0]++' || true)
mirror=
for each in ${DEBIAN_MIRROR:-$own http://deb.debian.org/debian}; do
  if wget -q --spider --timeout=5 --tries=1 "$each/dists/$suite/InRelease"; then
    mirror=$each
    break
  fi
  echo "no $suite at $each within 5 s" >&2
done
[ -n "$mirror" ] || {
  echo "No mirror of Debian is reached: name one that is, DEBIAN_MIRROR=http://mirror/debian make image" >&2
  exit 1
}
echo "debootstrap from $mirror"
mkdir -p target/image/packages
rm -rf --one-file-system "$root"
debootstrap --variant=minbase --include=python3,ca-certificates --cache-dir="$PWD/target/image/packages" "$suite" "$root" \
  "$mirror" >target/image/debootstrap.log || { tail target/image/debootstrap.log >&2; exit 1; }
# What an action cannot use: a read-only root has no package manager.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
  "$root"/usr/share/locale/* "$root"/var/log/*
tar -C "$root" --numeric-owner -c . | docker import - "$tag" >/dev/null
rm -rf --one-file-system "$root"
echo "built $tag"
