#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The same storage under two names is not taken for two regions, nor for a region
# and a copy of the log: links, a loop device and its file, two loop devices of a
# file, one on the other, a disk and its partition, two nodes of a device.  At the
# start and with dmioctl add; the message names both.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires losetup mount
requires_python_nbd
is_root || skip "only root can make loop devices"
set -x

loops=()
detach ()
{
  local i
  for (( i = ${#loops[@]} - 1; i >= 0; i-- )); do
    losetup -d "${loops[i]}"
  done
}
at_exit detach

# attach FILE OPTION...: sets $loop.
attach ()
{
  loop=$(losetup -f --show "${@:2}" "$1") || skip "no loop device is free"
  loops+=("$loop")
}

# refused A B: as two regions, and as a region and a copy of the log, in both
# orders; and B when A is a region already.
refused ()
{
  local a=$1 b=$2 order
  for order in "$a $b" "$b $a"; do
    set -- $order
    refused_mirror "region '$2'.*$1.*" "$1" "$2" init=clean log=m.log
    refused_mirror "region '$2'.*$1.*" "$1" "$2" log=none
    refused_mirror "log copy '$2'.*$1.*" "$1" o.img init=clean "log=$2"
  done
  start_mirror "$a" o.img init=clean log=m.log
  ! dmioctl add "$b" 2> added.text || die "added: $b"
  grep -E "region '[^']*${b##*/}'.*$a|region '$a' is a leg already" added.text
  [ "$(status '.legs | length')" -eq 2 ]
  stop_server
  rm m.log
}

make_regions 16M a.img o.img
ln -s a.img symbolic.img
ln a.img hard.img
refused a.img symbolic.img
refused a.img hard.img

attach a.img -P
one=$loop
attach a.img
two=$loop
attach "$one"
above=$loop
mknod node b "$(stat -c 0x%t "$one")" "$(stat -c 0x%T "$one")"
refused a.img "$one"
refused "$one" "$two"
refused "$one" "$above"
refused "$two" "$above"
refused a.img "$above"
refused "$one" "$PWD/node"

# Parts of a file that overlap, and some that do not.
attach a.img -o 2M --sizelimit 2M
begin=$loop
attach a.img -o 3M --sizelimit 2M
refused "$begin" "$loop"
attach a.img -o 4M --sizelimit 2M
start_dmio "$begin" "$loop"
stop_server

# A disk and its partition, of 4 MiB from 1 MiB on.
partition=${one}p1
if addpart "$one" 1 2048 8192 && wait_for test -b "$partition"; then
  refused "$one" "$partition"
  refused a.img "$partition"
  refused "$two" "$partition"
  attach a.img -o 8M
  start_dmio "$partition" "$loop"
  stop_server
else
  echo "$0: this system makes no devices for partitions; they were not tested" >&2
fi
