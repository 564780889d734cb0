#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The server is killed under load and started again by the same command, on two
# and on three files.  What was acknowledged is there, flushed or not, for the
# page cache has survived; what was in flight is there or not, and does not
# change any more once it was read; the regions are alike as soon as the server
# says so.  The next crash may come before that.
#
# DMIO_ROUNDS: how often, in all.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
set -x

rounds=${DMIO_ROUNDS:-$(( ${#DMIO_PRELOAD} > 0 ? 6 : 24 ))}
RANDOM=${DMIO_SEED:=$$}
echo "DMIO_SEED=$DMIO_SEED"

# Under load; one time in four also while it starts or reconciles.
crash ()
{
  start_crash_load -k -a
  nap 600
  kill_server
  end_crash_load
  start_mirror "$@"
  if [ "$(random_below 4)" -eq 0 ]; then
    nap 50
    kill_server
    start_mirror "$@"
  fi
}

settle ()
{
  wait_in_sync
  [ "$(status '[.legs[].state] | unique | join(",")')" = "in sync" ]
  check_volume
  same ./*.img
}

# crashes NUMBER ARGUMENT...
crashes ()
{
  local number=$1 n
  shift
  rm -f blocks ./*.img ./*.dmlog
  make_regions 32M "${@: -$legs}"
  start_mirror init=clean "$@"
  for n in $(seq "$number"); do
    crash "$@"
    case $(random_below 3) in
      0) ;;
      1) check_volume ;;
      2) check_volume
         settle ;;
    esac
  done
  check_volume
  settle
  stop_server
  same ./*.img
  log_is_clean a.img.dmlog
}

# Chunks as small as can be, so that most are clean at a crash; then, with one
# mebibyte, all are dirty.
legs=2 crashes $(( rounds / 3 )) chunk=64K a.img b.img
legs=3 crashes $(( rounds / 3 )) chunk=64K a.img b.img c.img
legs=2 crashes $(( rounds - rounds / 3 * 2 )) a.img b.img
