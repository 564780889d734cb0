#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A region and copies of the log in parts of one file or device, direct or not:
# served, restarted, after a crash, with the region added or opened again later.
# Parts that overlap are refused, and so are two regions.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires losetup mount
requires_python_nbd
set -x

loops=()
detach ()
{
  local loop
  for loop in "${loops[@]}"; do
    losetup -d "$loop"
  done
}
at_exit detach

# both_in_sync: and the server ends, and they are equal.
both_in_sync ()
{
  wait_in_sync
  [ "$(status .in_sync)" -eq 2 ]
  [ "$(status .log.copies)" -eq "$(status .log.all)" ]
  stop_server
  cmp -n 8388608 -i 4194304:0 "$disk" b.img
}

# try OPTIONS: with sectors 0 to 8191 of $disk for the log, and 16384 from there
# on as a region with these options.
try ()
{
  local region=$disk,sector=8192,count=16384$1
  local log=$disk,count=4096 second=$disk,sector=4096,count=4096

  rm -f ./*.dmlog
  make_regions 8M b.img
  dd if=/dev/zero of="$disk" bs=1M count=12 conv=notrunc status=none
  start_mirror "$region" b.img init=clean "log=$log" "log=$second"
  client 'write 0 1048576 0x11' flush 'write,fua 8384512 4096 0x12'
  both_in_sync
  start_mirror "$region" b.img "log=$log" "log=$second"
  [ "$(status .to_reconcile)" -eq 0 ]
  client 'read 0 1048576 0x11' 'write 2097152 4096 0x21'
  dmioctl fail 0
  client 'write 4194304 65536 0x22' flush
  dmioctl add 0
  both_in_sync

  start_mirror "$region" b.img "log=$log" "log=$second"
  client 'write 0 1048576 0x31' flush
  kill_server
  start_mirror b.img "$region" "log=$log" "log=$second"
  client 'read 0 1048576 0x31' 'read 4194304 65536 0x22'
  both_in_sync

  # A part that comes later, beside a copy of the log that is open.
  dd if=/dev/zero of="$disk" bs=1M count=4 conv=notrunc status=none
  start_mirror b.img init=clean "log=$log"
  ! dmioctl add "$disk" 2> refused.text || die "added what overlaps"
  grep "region '.*$disk'.* sectors 0 to .*log copy '$log' has 0 to 4095" refused.text
  dmioctl add "$region"
  client 'write 0 1048576 0x41' flush
  both_in_sync
}

disk=disk.img
make_regions 16M disk.img
try ,direct=off
make_regions 16M disk.img
try ,direct=on
if is_root; then
  for size in 512 4096; do
    make_regions 16M disk.img
    disk=$(losetup -f --show -b "$size" disk.img) || skip "no loop device is free"
    loops+=("$disk")
    try ''
    try ,direct=off
  done
fi

# What overlaps.
disk=disk.img
make_regions 16M disk.img b.img
refused_mirror "log copy '$disk,sector=8000,count=1000'.* 8000 to 8999.*region '$disk,sector=8192' has 8192 to 32767.*sector= and count=" \
               "$disk,sector=8192" b.img init=clean \
               "log=$disk,sector=8000,count=1000"
refused_mirror "log copy '$disk,sector=8'.*log copy '$disk,count=16' has 0 to 15.*sector=" \
               b.img init=clean "log=$disk,count=16" "log=$disk,sector=8"
refused_mirror "region '$disk,sector=8'.*same file as region '$disk,count=8'.*once" \
               "$disk,count=8" "$disk,sector=8" log=none

# A region that is missing at the start: no file is made for the copy of the log
# that was on it, and it is opened again.
region=$disk,sector=8192,count=8192
start_mirror "$region" b.img,count=8192 init=clean "log=$disk,count=8192" \
             log=other.log
client 'write 0 4096 0x51' flush
stop_server
mv $disk away
start_mirror "$region" b.img,count=8192 degraded=yes "log=$disk,count=8192" \
             log=other.log
[ ! -e $disk ]
client 'write 0 4096 0x52' flush
mv away $disk
wait_in_sync 60
[ "$(status .in_sync)" -eq 2 ]
stop_server
holds $disk 4194304 4096 82
start_mirror "$region" b.img,count=8192 "log=$disk,count=8192" log=other.log
client 'read 0 4096 0x52'
stop_server
cmp -n 4194304 -i 4194304:0 $disk b.img
