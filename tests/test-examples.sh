#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The examples that need no hardware, no virtual machine and no answers work,
# and leave nothing behind.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-nbd qemu-utils
requires nbdcopy libnbd-bin
requires psktool gnutls-bin
requires ip iproute2
requires unshare util-linux
set -x

export DMIO=$DMIO_PLUGIN DMIO_TIMEOUT=120
DMIOCTL=$(realpath "$builddir/../plugin/dmioctl")
export DMIOCTL
mkdir temporary

# example NAME ARGUMENT...
example ()
{
  local name=$1
  shift
  TMPDIR=$tmp/temporary bounded "$srcdir/../examples/$name.sh" "$@" \
    > "$name.log" 2>&1
  [ -z "$(ls temporary)" ] || die "$name.sh has left files"
}

random_file disk.raw 3000000
qemu-img convert -O qcow2 disk.raw disk.qcow2
example qemu-img disk.qcow2 a.img b.img
grep -x 'Images are identical.' qemu-img.log
cmp -n 3000000 disk.raw a.img
same a.img b.img

example qcow2-regions
[ "$(grep -c -x 'Images are identical.' qcow2-regions.log)" -eq 3 ]
grep '[[:space:]]empty[[:space:]]' qcow2-regions.log
grep -x '== It works' qcow2-regions.log

example tls-psk
grep 'protocol: .* with TLS' tls-psk.log
grep -x '== It works' tls-psk.log

own_network=(unshare -n -m)
is_root || own_network+=(-r)
"${own_network[@]}" true ||
  skip "three-machines.sh only: this machine allows no network namespaces"
ip -o link | sort > links
example three-machines
grep 'lost its connection' three-machines.log
grep 'connected again' three-machines.log
grep -x '== It works' three-machines.log
ip -o link | sort | diff links -
