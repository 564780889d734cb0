#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A remote hangs, which keeps requests waiting for at most the timeout and fails
# none of them.  When it goes on, or another server has taken its place, it is
# recovered by itself, and what it was sent before does not spoil what is newer.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

timeout=2

# no_longer_than SECONDS: did the slowest request of the load take.
no_longer_than ()
{
  local msec
  msec=$(sed -n 's/.*slowest \([0-9]*\) ms.*/\1/p' load.log)
  [ "$msec" -ge 500 ] || die "the load has not seen the hang"
  [ "$msec" -le $(( $1 * 1000 + $(slack) )) ] || die "a request took $msec ms"
}

is_out ()
{
  [ "$(state "$1")" != "in sync" ]
}

# hang COMMAND...: the remote h hangs under load, for longer than the timeout;
# then the command is run.
hang ()
{
  start_crash_load -t 6
  stop_remote h
  wait_for is_out "$number"
  sleep 1
  "$@"
  end_crash_load
  no_longer_than $timeout
  check_volume
  wait_in_sync
  check_volume
}

replace ()
{
  kill -KILL "${remote_pid[h]}"
  kill_remote h
  restart_remote h
}

# The remote is the second leg, then the first.
for number in 1 0; do
  rm -f blocks log
  make_regions 32M a.img h.img
  start_remote h nbdkit -t 1 file "$tmp/h.img"
  regions=(a.img "${remote_uri[h]}")
  [ $number -eq 1 ] || regions=("${remote_uri[h]}" a.img)
  start_mirror init=clean log=log chunk=64K timeout=$timeout "${regions[@]}"
  hang continue_remote h
  hang replace
  stop_server_within $timeout
  kill_remote h
  same a.img h.img
done
