#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# A mirror over two qcow2 files: qemu-nbd serves what is in them, and so
# knows all that qcow2 can do: here, a snapshot of one copy is made first.
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

# shellcheck source-path=SCRIPTDIR source=functions.sh
. "$(dirname "$0")/functions.sh"

step "Two qcow2 files, and a snapshot that shows how one began"
run qemu-img create -q -f qcow2 a.qcow2 64M
run qemu-img create -q -f qcow2 b.qcow2 64M
run qemu-img snapshot -c empty a.qcow2

step "qemu-nbd serves them, and the mirror is over both"
for region in a b; do
  serve qemu-nbd --persistent --shared=0 --socket="$PWD/$region.sock" \
    --format=qcow2 --discard=unmap $region.qcow2
  await nbdinfo --size "nbd+unix:///?socket=$region.sock"
done
serve nbdkit -f --exit-with-parent -U mirror.sock "$dmio" log=mirror.dmlog init=clean \
  "nbd+unix:///?socket=a.sock" "nbd+unix:///?socket=b.sock"
uri="nbd+unix:///?socket=mirror.sock"
await nbdinfo --size "$uri"

step "Copy a disk image into it; what is a hole stays one"
head -c 20M /dev/urandom >disk.img
truncate -s 64M disk.img
run qemu-img convert -n -f raw disk.img -O raw "$uri"
run nbdinfo --map --totals "$uri"
run qemu-img compare -f raw -F raw disk.img "$uri"
ls -sh disk.img a.qcow2 b.qcow2

step "Without the servers, each file has all of it"
stop_servers
for region in a b; do
  run qemu-img check -q $region.qcow2
  run qemu-img compare -f raw -F qcow2 disk.img $region.qcow2
done
run qemu-img snapshot -l a.qcow2

step "It works"
