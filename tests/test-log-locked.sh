#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One writer: a second server is refused for the regions and for the copies of
# the log, and harms neither; so is qemu.  A reader of the log is not let
# in either.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
requires qemu-io qemu-utils
set -x

make_regions 4M a.img b.img c.img
start_mirror a.img b.img init=clean
client "write 0 4096 0x61" flush
first=$(status .uuid)
first_control=$control

refused_mirror 'a\.img.*locked.*another server' a.img b.img
refused_mirror 'a\.img.*locked.*another server' a.img b.img degraded=yes
refused_mirror 'b\.img.*locked.*another server' c.img b.img init=clean
refused_mirror 'b\.img.*locked.*another server' b.img log=d.dmlog init=clean
refused_mirror 'a\.img\.dmlog.*locked.*another server' c.img log=a.img.dmlog
refused_mirror 'a\.img\.dmlog.*locked.*another server' c.img init=clean \
               log=d.dmlog log=a.img.dmlog
refused_mirror 'control=.*another server uses this socket' c.img init=clean \
               log=d.dmlog control="$control"
[ ! -e c.img.dmlog ]
[ ! -e d.dmlog ]
! bounded qemu-io -f raw -c 'write 0 512' a.img.dmlog 2> qemu.log ||
  die "accepted: qemu-io -f raw -c 'write 0 512' a.img.dmlog"
grep -i lock qemu.log
! dmioctl log a.img.dmlog 2> log.text ||
  die "accepted: dmioctl log a.img.dmlog"
grep locked log.text

# The first one does not notice.
[ "$(status .uuid)" = "$first" ]
client "read 0 4096 0x61" "write 4096 4096 0x62" flush
[ "$(status '"\(.in_sync) \(.log.copies)"')" = "2 2" ]

# Nor can a leg of one be added to another.
control=$tmp/other.sock
start_mirror c.img init=clean
! dmioctl add a.img 2> add.text ||
  die "accepted: dmioctl add a.img"
grep -E "a\.img.*locked.*another server" add.text
! dmioctl add missing.img 2> add.text ||
  die "accepted: dmioctl add missing.img"
grep -E "missing\.img.*No such file" add.text
make_regions 2M small.img
! dmioctl add small.img 2> add.text ||
  die "accepted: dmioctl add small.img"
grep -E "small\.img.*less than the volume" add.text
! dmioctl add c.img 2> add.text ||
  die "accepted: dmioctl add c.img"
grep 'is a leg already' add.text
[ "$(status '.legs | length')" -eq 1 ]
stop_server

server_pid=${servers[0]}
control=$first_control
[ "$(status .in_sync)" -eq 2 ]
stop_server
same a.img b.img

# A crash leaves no lock behind.
start_mirror a.img b.img
kill_server
start_mirror a.img b.img
wait_in_sync
stop_server
