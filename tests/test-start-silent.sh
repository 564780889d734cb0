#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Servers that take a connection and say nothing, at a start: regions and copies
# of the log are waited for at the same time, so a start takes one timeout.
# What was wrong is said in the order of the command line.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

timeout=4
names=(one two three log1 log2)

# took MSEC: since begin was called, less than that and what starts take.
begin ()
{
  begun=$(date +%s%N)
}

took ()
{
  local msec=$(( ($(date +%s%N) - begun) / 1000000 ))
  echo "it took $msec ms" >&2
  [ $msec -lt $(( $1 + $(slack) )) ]
}

# in_order FILE: each of the names is in it, one after another.
in_order ()
{
  grep -oE "'nbd[^']*(one|two|three|log1|log2)\.sock': " "$1" |
    sed -E "s/.*\/(.*)\.sock': /\1/" > order.list
  printf '%s\n' "${@:2}" | diff - order.list
}

make_regions 4M a.img one.img two.img three.img
truncate -s 1M log1.img log2.img
for name in "${names[@]}"; do
  start_remote "$name" nbdkit -t 1 file "$tmp/$name.img"
done
regions=(a.img "${remote_uri[one]}" "${remote_uri[two]}" "${remote_uri[three]}")
logs=(log=a.dmlog "log=${remote_uri[log1]}" "log=${remote_uri[log2]}")

start_mirror "${regions[@]}" "${logs[@]}" init=clean timeout=$timeout
client "write 0 4096 0x61" flush
stop_server

# All of them are silent.
stop_remote "${names[@]}"
begin
start_mirror "${regions[@]}" "${logs[@]}" degraded=yes timeout=$timeout
took $(( 2 * timeout * 1000 ))
[ "$(state 0)" = 'in sync' ]
for leg in 1 2 3; do
  [ "$(state $leg)" = missing ]
done
in_order "$server_log" "${names[@]}"
client "read 0 4096 0x61" "write 0 4096 0x62"
continue_remote "${names[@]}"
wait_in_sync
stop_server
same a.img one.img two.img three.img

# A start that is refused waits as long, for what is wrong first; and not at all
# for servers if it is a file.
stop_remote two three
begin
refused_mirror 'log copy.*may be newer.*degraded=yes' "${regions[@]}" \
               "${logs[@]}" timeout=$timeout log=nbd://localhost:1
took $(( 2 * timeout * 1000 ))
in_order refused.log two three
begin
refused_mirror 'one\.sock.*already.*once' a.img "${remote_uri[one]}" \
               "${remote_uri[one]}" "${remote_uri[two]}" log=none \
               timeout=$timeout
took $(( timeout * 1000 ))
begin
refused_mirror 'typo\.img.*create' typo.img "${remote_uri[two]}" \
               "${remote_uri[three]}" init=clean timeout=60
took 30000
continue_remote two three

# Nothing of it is left over.
start_mirror "${regions[@]}" "${logs[@]}" timeout=$timeout
wait_in_sync
stop_server
