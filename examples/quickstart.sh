#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# From a bare Debian 12 or 13 to a mirror that is seen working: installs what is
# missing, builds in place, serves a mirror over two files, copies a
# disk image into it and out again, and lets a region fail.

set -euo pipefail
cd "$(dirname "$0")/.."
. examples/packages.sh

step () { printf '\n== %s\n' "$*"; }
run () { printf '$ %s\n' "$*"; "$@"; }

step "Packages"
install_packages "${packages_build[@]}" "${packages_clients[@]}"
echo "All are there."

step "Build (the log is quickstart.log)"
build ()
{
  { [ -x configure ] || autoreconf -fi; } &&
  { [ -e config.status ] || ./configure; } &&
  make -j"$(nproc)"
}
if ! build >quickstart.log 2>&1; then
  tail -n 20 quickstart.log >&2
  echo "error: the build failed; see quickstart.log" >&2
  exit 1
fi
dmio=$PWD/plugin/.libs/nbdkit-dmio-plugin.so
dmioctl=$PWD/plugin/dmioctl
echo "The plugin is plugin/.libs/nbdkit-dmio-plugin.so"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$dmio" "$work/dmio.so"
cd "$work"

step "A disk image, and two empty files for a mirror"
head -c 20M /dev/urandom >disk.img
run truncate -s 64M disk.img a.img b.img
ls -sh disk.img a.img b.img

step "Serve the mirror, and copy the image into it and out again"
# $uri is for the shell that nbdkit starts.
# shellcheck disable=SC2016
run nbdkit -U - ./dmio.so a.img b.img init=clean --run '
  nbdinfo "$uri" | grep -e description -e export-size &&
  qemu-img convert -n -f raw disk.img -O raw "$uri" &&
  qemu-img convert -f raw "$uri" -O raw copy.img'

step "Both regions are the volume"
run cmp disk.img a.img
run cmp disk.img b.img
run cmp disk.img copy.img
echo "They are all the same."

step "Without one of the regions, which was in sync: only if you say so"
run mv b.img away.img
run nbdkit -U - ./dmio.so a.img b.img --run true 2>&1 || true
# shellcheck disable=SC2016
run nbdkit -U - ./dmio.so a.img b.img degraded=yes --run '
  qemu-io -f raw -c "write -P 0x55 4M 64k" -c flush "$uri"' 2>&1

step "It comes back, old: what it lacks is copied to it, and no more"
run mv away.img b.img
run nbdkit -U - ./dmio.so b.img a.img control=control.sock --run "
  $dmioctl -s control.sock wait && $dmioctl -s control.sock status" 2>&1
run cmp a.img b.img
echo "They are the same again."

step "It works.  To go on, read README.md and 'man plugin/nbdkit-dmio-plugin.1'"
