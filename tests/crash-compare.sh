#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# usage: crash-compare.sh [ROUNDS]
#
# What a crash leaves behind, beside qemu's quorum driver: two files that are
# alike are mirrored, written and read (crash-load.c), and the server is killed
# with SIGKILL; then the same command starts it again, and when it has nothing
# left to do it is stopped.  Do the files differ?
#
#   quorum     qemu-nbd with the quorum driver, two children
#   log=none   dmio without a log
#   dmio       dmio
#
# Prints in how many rounds they differed, and in how many blocks of 4 KiB.  No
# test; to be run in the directory tests of a build.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires qemu-nbd qemu-utils

start_quorum ()
{
  local options=driver=quorum,vote-threshold=2,read-pattern=fifo child
  for child in 0 1; do
    options+=,children.$child.driver=raw
    options+=,children.$child.file.driver=file
    options+=,children.$child.file.filename=$tmp/$child.img
  done
  server_socket=$tmp/quorum.sock
  server_log=$tmp/quorum.log
  uri="nbd+unix:///?socket=$server_socket"
  rm -f "$server_socket"
  qemu-nbd --persistent --shared=0 --socket="$server_socket" \
           --image-opts "$options" < /dev/null > "$server_log" 2>&1 &
  server_pid=$!
  servers+=("$server_pid")
  wait_for is_listening
}

# start KIND [new]
start ()
{
  case $1 in
    quorum) start_quorum ;;
    log=none) start_dmio 0.img 1.img ;;
    dmio) start_mirror ${2:+init=clean} 0.img 1.img ;;
  esac
}

different_blocks ()
{
  { cmp -l 0.img 1.img || :; } |
    awk '{ block[int (($1 - 1) / 4096)] } END { print length (block) }'
}

# crash KIND: adds a line to the file of that name.
crash ()
{
  rm -f blocks ./*.dmlog
  make_regions 32M 0.img 1.img
  start "$1" new
  start_crash_load -k -a
  nap 600
  kill_server
  end_crash_load
  start "$1"
  [ "$1" != dmio ] || wait_in_sync
  stop_server
  different_blocks >> "$1"
}

for _ in $(seq "${1:-50}"); do
  for kind in quorum log=none dmio; do
    crash $kind >&2
  done
done
for kind in quorum log=none dmio; do
  awk -v kind=$kind '
    $1 > 0 { rounds++; sum += $1 }
    $1 > max { max = $1 }
    END { printf "%-10s %d of %d rounds differ, %.1f blocks in the mean" \
                 " of these, %d at most\n", kind, rounds, NR,
                 rounds ? sum / rounds : 0, max }' < $kind
done
