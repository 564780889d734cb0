#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The server of a leg is asked to end while dmio is connected to it, which is
# idle, or reads, or writes.  nbdkit waits for its clients then; dmio leaves it at
# once, and is back when another server has taken its place.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

# ends_within SECONDS: the remote c, after SIGTERM.
ends_within ()
{
  local pid=${remote_pid[c]} begin=${EPOCHREALTIME/./} msec
  kill "$pid"
  wait_for has_ended "$pid"
  msec=$(( (${EPOCHREALTIME/./} - begin) / 1000 ))
  echo "gone after $msec ms"
  [ $msec -le $(( $1 * 1000 + $(slack) )) ] || die "it ended after $msec ms"
  kill_remote c
}

# Under load the server may be gone before the answer that says so is read.
has_left ()
{
  logged "$(region c).*lost its connection \(the server ($1)\)"
}

# check LOAD: with that load, or idle.
check ()
{
  rm -f blocks log
  make_regions 4M a.img c.img
  for file in a.img c.img; do
    "$python" "$srcdir/load.py" make $file $(( 4 << 20 ))
  done
  start_remote c nbdkit file "$tmp/c.img"
  start_mirror init=clean log=log read=first "${remote_uri[c]}" a.img
  case $1 in
    read) start_load 4 kind=read ;;
    mixed) start_load 4 ;;
  esac
  sleep 1
  ends_within 3
  case $1 in
    idle) wait_for has_left 'is shutting down' ;;
    *) wait_for has_left 'is shutting down|cannot be reached' ;;
  esac
  sleep 1
  restart_remote c
  [ "$1" = idle ] || end_load
  wait_for eval '[ "$(back c)" -ge 1 ]'
  wait_in_sync
  [ "$(state 0)" = "in sync" ]
  stop_server_within 5
  same a.img c.img
  kill_remote c
}

check idle
check read
check mixed
