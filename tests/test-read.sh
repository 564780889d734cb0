#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Which region is read, seen from what is in it: here they differ.  read=first,
# with a log and without, write-mostly, and what is read when a region fails or
# has lost its server.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
set -x

# filled FILE BYTE: 1 MiB.
filled ()
{
  head -c 1M /dev/zero | tr '\0' "\\$(printf %03o "$2")" > "$1"
}
differ ()
{
  filled a.img 0x11
  filled b.img 0x22
  filled c.img 0x33
}
differ

# reads BYTE: all reads have that; one after another, in many places.
reads ()
{
  local - i requests=()
  set +x
  for (( i = 0; i < 100; i++ )); do
    requests+=("read $(( i * 7919 * 512 % 1048576 )) 512 $1")
  done
  client "${requests[@]}" > reads.out
}

# trace OPERATION: which regions had a part in it, from -D dmio.io=1.
trace ()
{
  grep "$1 count=" "$server_log" | tail -n 1 |
    grep -oE 'region [0-9]+ ok [0-9]+ us' | cut -d' ' -f2 | paste -sd' '
}

start_dmio a.img b.img c.img read=first
reads 0x11
stop_server
start_dmio c.img b.img a.img read=first
reads 0x33
stop_server
start_dmio c.img,write-mostly b.img a.img read=first
reads 0x22
stop_server

# With a log, the first on the command line may have any number.  It would not
# begin with regions that differ, or have changed, so their times are put back.
cp a.img b.img
cp a.img c.img
start_mirror a.img b.img c.img read=first init=clean
stop_server
for region in a.img b.img c.img; do
  cp -p "$region" "$region.time"
done
differ
for region in a.img b.img c.img; do
  touch -r "$region.time" "$region"
done
start_mirror a.img b.img c.img read=first
reads 0x11
stop_server
start_mirror c.img a.img b.img read=first
reads 0x33
stop_server
start_mirror c.img,write-mostly b.img a.img read=first
reads 0x22
stop_server
# One that comes later is the last.
start_mirror c.img b.img read=first degraded=yes
dmioctl add a.img
wait_in_sync
reads 0x33
dmioctl fail c.img
reads 0x22
stop_server
rm ./*.dmlog

# With balance, which is the default, any that is not write-mostly.
for parameter in '' read=balance; do
  # shellcheck disable=SC2086
  start_dmio -v -D dmio.io=1 a.img,write-mostly b.img $parameter
  reads 0x22
  client "read 0 1048576 0x22" "write 0 1048576 0x22" flush
  [ "$(trace read)" = 1 ]
  [ "$(trace write)" = '0 1' ]
  stop_server
  filled a.img 0x11
done
# If all are, it is as if none were.
start_dmio a.img,write-mostly b.img,write-mostly read=first
reads 0x11
stop_server

# The others cannot be read, and so this one is.
start_dmio a.img,write-mostly b.img c.img
truncate -s 0 b.img
reads 0x33
truncate -s 0 c.img
reads 0x11
logged 'region 1 \(b\.img\): read .* failed: .*reading from the next region'
logged 'region 2 \(c\.img\): read .* failed: .*reading from the next region'
not_logged 'region 0'
stop_server

# A server that is away, and comes back.
filled b.img 0x22
start_remote b nbdkit -t 1 file "$tmp/b.img"
start_dmio a.img,write-mostly "${remote_uri[b]}" timeout=5
reads 0x22
kill_remote b
reads 0x11
wait_for logged 'lost its connection'
reads 0x11
restart_remote b
wait_for logged 'connected again'
reads 0x22
stop_server
start_dmio "${remote_uri[b]}" a.img read=first timeout=5
reads 0x22
kill_remote b
reads 0x11
restart_remote b
wait_for logged 'connected again'
reads 0x22
stop_server
