#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Volumes whose last chunk is shorter than the others, or is the only one:
# copied in full at init=sync, reconciled after a crash, and recovered.  (R14)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

# volume BYTES CHUNK
volume ()
{
  local last=$(( $1 - 512 )) n
  rm -f blocks log
  random_file a.img "$1"
  random_file b.img "$1"
  random_file c.img "$1"
  start_remote b nbdkit -t 1 file "$tmp/b.img"
  regions=(a.img "${remote_uri[b]}" c.img)

  start_mirror log=log timeout=2 init=sync "chunk=$2" "${regions[@]}"
  wait_in_sync
  same a.img b.img c.img
  [ "$(status .size)" -eq "$1" ]
  client "write $last 512 0x71" flush
  kill_remote b
  client "write $last 512 0x72" flush
  restart_remote b
  wait_in_sync
  same a.img b.img c.img
  holds b.img "$last" 512 0x72
  [ "$1" -lt 4096 ] || client "zero 0 $1" flush

  for n in 1 2 3; do
    [ "$1" -ge 4096 ] || break
    start_crash_load -k -a
    nap 300
    kill_server
    end_crash_load
    start_mirror log=log timeout=2 "${regions[@]}"
    check_volume
    wait_in_sync
    same a.img b.img c.img
  done
  stop_server
  kill_remote b
  same a.img b.img c.img
}

MiB=1048576
volume $(( 3 * MiB + 4608 )) 1M
volume $(( 64 * 1024 * 5 + 512 )) 64K
volume $MiB 1M
volume 4096 64K
volume 512 64K
