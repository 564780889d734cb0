#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A region whose connection was lost.  If the server had everything, it is
# back as soon as the server is; if something had not been flushed, it stays
# failed until restart, since the server may have lost that.  Either way its
# requests fail at once meanwhile, the other regions go on, and each change of
# its state is logged once.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

# start POSITION: regions a.img and b.img, with the remote c at that position.
start ()
{
  make_regions 4M a.img b.img c.img
  start_remote c nbdkit --filter=log file "$tmp/c.img" \
               logfile="$tmp/c.requests"
  start_dmio_with_c "$1"
}

start_dmio_with_c ()
{
  local regions=(a.img b.img)
  start_dmio timeout=2 "${regions[@]:0:$1}" "${remote_uri[c]}" \
             "${regions[@]:$1}"
}

connections ()
{
  grep -c ' Connect ' c.requests || true
}

is_lost ()
{
  [ "$(lost c)" -gt 0 ] || [ "$(failed c)" -gt 0 ]
}

is_back ()
{
  [ "$(back c)" -gt 0 ]
}

for p in 0 1 2; do
  # Everything was flushed.
  start $p
  client "write 0 65536 0x41" "zero 4096 4096" "trim 8192 4096" flush
  kill_remote c
  wait_for is_lost
  client "read 0 4096 0x41" "read 4096 4096" "cache 0 4096" "status 0 4194304"
  restart_remote c
  wait_for is_back
  client "write 0 4096 0x42" "read 0 4096 0x42" flush \
         "write,fua 65536 65536 0x43" "zero 131072 4096" \
         "trim 135168 4096" flush
  [ "$(lost c)" -eq 1 ]
  [ "$(back c)" -eq 1 ]
  [ "$(failed c)" -eq 0 ]
  not_logged "(write|zero|discard|flush).*failed"
  stop_server_within 4
  same a.img b.img c.img
  kill_remote c
done

# Something was not: a write, or zeroes.
while read -r p request; do
  start "$p"
  client "write 131072 4096 0x45" flush "$request"
  kill_remote c
  wait_for is_lost
  rm -f c.requests
  cp c.img before.img
  restart_remote c
  client "write 0 4096 0x46 EIO" "read 0 4096 0x46" "zero 4096 4096 EIO" \
         "read 4096 4096" "flush EIO" "read 131072 4096 0x45"
  sleep 1
  client "write 8192 4096 0x47 EIO" "read 8192 4096 0x47"
  [ "$(connections)" -eq 0 ]
  [ "$(back c)" -eq 0 ]
  [ "$(failed c)" -eq 1 ]
  [ "$(lost c)" -eq 1 ]
  logged "region $p \($(region c)\): write of 4096 bytes at offset 0 failed"
  stop_server_within 4
  same a.img b.img
  same before.img c.img
  kill_remote c
done <<'TABLE'
0 write 0 65536 0x44
2 zero 0 65536
TABLE

# A trim, with a server where that is done.
make_regions 4M a.img b.img
start_remote c nbdkit memory 4M
start_dmio_with_c 1
client "write 0 65536 0x4a" flush "trim 0 4096"
kill_remote c
wait_for is_lost
restart_remote c
client "write 0 4096 0x4b EIO" "read 0 4096 0x4b"
[ "$(failed c)" -eq 1 ]
stop_server_within 4
same a.img b.img
kill_remote c

# A write while it is away: the others have it, and nothing is read from it
# again.
start 0
client "write 0 65536 0x48" flush
kill_remote c
wait_for is_lost
client "write 0 4096 0x49 EIO" "read 0 4096 0x49"
logged "region 0 \($(region c)\): write of 4096 bytes at offset 0 failed: Transport endpoint is not connected"
restart_remote c
sleep 2
for _ in 1 2 3 4 5 6 7 8 9 10; do
  client "read 0 4096 0x49" "read 4096 61440 0x48"
done
stop_server_within 4
same a.img b.img
holds c.img 0 4096 0x48

# The server is back, but with another size: not used.
start 1
client "write 0 65536 0x50" flush
kill_remote c
wait_for is_lost
truncate -s 2M c.img
restart_remote c
sleep 1.5
client "read 0 4096 0x50" "read 3145728 4096" "write 0 4096 0x51 EIO" \
       "read 0 4096 0x51"
[ "$(back c)" -eq 0 ]
stop_server_within 4
same a.img b.img
holds c.img 0 4096 0x50

# The shutdown while it is away, and nobody listens, or somebody who says nothing.
kill_remote c
start 1
kill_remote c
wait_for is_lost
stop_server_within 2
start 1
kill_remote c
wait_for is_lost
start_remote c silent
sleep 0.5
stop_server_within 4

# All are away: errors at once, and all is well when one is back.
make_regions 4M c.img
kill_remote c
start_remote c nbdkit file "$tmp/c.img"
start_dmio timeout=60 "${remote_uri[c]}"
client "write 0 4096 0x52" flush "read 0 4096 0x52"
kill_remote c
wait_for is_lost
SECONDS=0
client "read 0 4096 0 EIO" "read 0 4096 0 EIO"
[ $SECONDS -le 20 ]
restart_remote c
wait_for client "read 0 4096 0x52"
client "write 0 4096 0x53" flush
stop_server_within 4
