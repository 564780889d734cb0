#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# The quickstart, a build and all tests that need no virtual machine, on another
# release of Debian than the one that is running: 'other-release.sh trixie'.
#
# The release is in a directory, which debootstrap makes the first time and
# which is kept for the next: dmio-RELEASE in $DMIO_RELEASES, by default
# /var/tmp.  What is mounted there, and what runs there, is in namespaces of
# this script's own and goes with it.  Only root can do that.
#
# The last line counts the tests.

set -euo pipefail
cd "$(dirname "$0")/.."
. examples/packages.sh
. tests/source.sh

die ()
{
  echo "${0##*/}: $*" >&2
  exit 1
}

[ $# -eq 1 ] || die "name a release of Debian, for example trixie"
[ "$(id -u)" -eq 0 ] || die "only root can make another release: use sudo"
release=$1
root=${DMIO_RELEASES:-/var/tmp}/dmio-$release

if [ -z "${DMIO_IN_NAMESPACES:-}" ]; then
  install_packages debootstrap util-linux
  exec env DMIO_IN_NAMESPACES=1 flock "$root.lock" \
       unshare --mount --propagation private --pid --fork --kill-child \
               --mount-proc bash tests/other-release.sh "$release"
fi

# The first process of a namespace gets only the signals that it asks for.
trap 'exit 130' INT
trap 'exit 143' TERM

# Where this system has its packages from; nothing: debootstrap's default.
mirror ()
{
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(SITE)' 'Created-By: Packages' \
          'Origin: Debian' 'Label: Debian' 2>/dev/null | sed -n 1p
}

make_release ()
{
  local from
  from=$(mirror)
  rm -rf --one-file-system "$root.new"
  debootstrap --variant=minbase "$release" "$root.new" ${from:+"$from"} \
    >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    die "debootstrap cannot make $release; all that it said is in $root.log"
  }
  mv "$root.new" "$root"
}

[ -d "$root" ] || make_release
[ -O "$root" ] || die "$root belongs to somebody else; remove it"
rm -rf --one-file-system "$root/source" "$root"/tmp/*
mkdir "$root/source"
copy_source "$root/source"
mount --bind "$root" "$root"    # tests make mount namespaces in there
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
chroot "$root" env -u TMPDIR PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
       LC_ALL=C bash /source/tests/run.sh without-vm
