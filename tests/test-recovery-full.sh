#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A leg, with a copy of the log beside it, lies on a file system that runs full.
# The mirror goes on without it; when there is space again it is recovered by
# itself.

# The mount goes away with the namespace in which all of this runs.
if [ -z "${DMIO_OWN_MOUNTS:-}" ]; then
  own_mounts=(unshare -m)
  [ "$(id -u)" -eq 0 ] || own_mounts+=(-r)
  "${own_mounts[@]}" true || {
    echo "$0: skipped: this machine allows no mount namespace" >&2
    exit 77
  }
  exec env DMIO_OWN_MOUNTS=yes "${own_mounts[@]}" bash "$0"
fi

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
set -x

# shellcheck disable=SC2016
at_exit 'umount -l "$tmp/full"'
mkdir full
mount -t tmpfs -o size=16m dmio-test full
make_regions 64M a.img full/b.img
start_mirror init=clean chunk=64K a.img full/b.img

# 64 MiB do not fit into 16.  No request fails.
start_crash_load -t 4
end_crash_load
check_volume
[ "$(state 0)" = "in sync" ]
[ "$(state 1)" != "in sync" ]
[ "$(status .in_sync)" -eq 1 ]
[ "$(status .degraded)" = true ]
logged 'full/b\.img.*No space left on device'
[ "$(status '.legs[1].out_of_sync')" -gt 0 ]
status '.legs[1].reason' | grep 'No space left on device'

# What it has is not forgotten while it has no space.
stop_server
start_mirror a.img full/b.img
check_volume
[ "$(state 1)" != "in sync" ]

mount -o remount,size=100m full
wait_in_sync
check_volume
[ "$(status .in_sync)" -eq 2 ]
same a.img full/b.img
start_crash_load -t 1
end_crash_load
stop_server
same a.img full/b.img
log_is_clean a.img.dmlog
log_is_clean full/b.img.dmlog
