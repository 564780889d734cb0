#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One of three remotes is killed under load, and perhaps restarted at once.
# With changes in flight it stays away; with reads alone it comes back.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires qemu-nbd qemu-utils
set -x

# Changes; killed, and later restarted.
start_three 0 nbdkit file "$tmp/c.img"
start_load 2.5 errors=EIO latency=3 regions=a.img,b.img
kill_remote c
sleep 1
cp c.img before.img
restart_remote c
end_load
c_stays_away
same before.img c.img
stop_server_within 3
same a.img b.img

# The same command starts again.
start_dmio_on_three 0
client "write 0 4194304 0x43" "read 0 4194304 0x43" flush
stop_server_within 3
same a.img b.img c.img
kill_remote a b c

# Changes; the last region is restarted at once.  These servers have fast zeroes,
# and so trim does something.
others=(qemu-nbd --format=raw --discard=unmap)
start_three 2 "${others[@]}" c.img
nbdinfo --can fast-zero "$uri"
start_load 2 errors=EIO latency=3 regions=a.img,b.img
kill_remote c
restart_remote c
end_load
c_stays_away
stop_server_within 3
same a.img b.img
kill_remote a b c

# Reads.
others=(nbdkit file)
start_three 1 nbdkit file "$tmp/c.img"
start_load 2 kind=read latency=3
kill_remote c
sleep 0.7
restart_remote c
end_load
c_comes_back
stop_server_within 3
kill_remote c

# Reads, and two of three are killed again and again.
start_three 0 nbdkit file "$tmp/c.img"
start_load 3 kind=read latency=3
for _ in 1 2 3; do
  kill_remote a c
  sleep 0.3
  restart_remote a
  restart_remote c
  sleep 0.6
done
end_load
c_comes_back
stop_server_within 3
