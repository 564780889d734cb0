#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A write fails on one leg and is acknowledged: that the leg lacks it is in the
# log by then.  The server is killed at once; after the next start the leg
# is still out of sync, is not read, and is then recovered.  (R4)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

start ()
{
  start_mirror timeout=2 log=log read=first "${remote_uri[e]}" a.img "$@"
}

make_regions 8M a.img e.img
start_counted_remote e error \
  error-pwrite-rate=100% error-pwrite-file="$tmp/no-write"
start init=clean chunk=64K
client "write 0 1048576 0x61" flush
wait_in_sync

for byte in 0x62 0x63 0x64; do
  touch no-write
  client "write 65536 4096 $byte"
  kill_server
  for _ in 1 2; do
    start
    [ "$(state 0)" != "in sync" ]
    client "read 65536 4096 $byte" "read 0 65536 0x61"
    kill_server
  done
  rm no-write
  start
  client "read 65536 4096 $byte"
  wait_in_sync
  client "read 65536 4096 $byte" "read 0 65536 0x61" "read 131072 65536 0x61"
  kill_server
  start
  wait_in_sync
  same a.img e.img
done
stop_server
kill_remote e
same a.img e.img
