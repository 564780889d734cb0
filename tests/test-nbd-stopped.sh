#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One of three remotes is stopped under load, so that its kernel takes what is
# sent, but nobody answers: after the timeout it is given up.  What it still
# does when it goes on lands on nothing newer.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires qemu-nbd qemu-utils
set -x

# Changes.
start_three 1 qemu-nbd --format=raw c.img
start_load 3 errors=EIO latency=3 regions=a.img,b.img
stop_remote c
sleep 1.7
continue_remote c
end_load
c_stays_away
# What was sent to it has been done by now; after that, nothing.
cp c.img before.img
client "write 0 4194304 0x44 EIO" "read 0 4194304 0x44"
same before.img c.img
stop_server_within 3
same a.img b.img
kill_remote a b c

# Reads.
start_three 0 nbdkit -t 1 file "$tmp/c.img"
start_load 3 kind=read latency=3
stop_remote c
sleep 1.5
continue_remote c
end_load
c_comes_back
stop_server_within 3
kill_remote c

# It stays stopped, and the server is told to end: while it is idle, while it
# tries to connect, and while a client waits for it.
start_three 2 nbdkit -t 1 file "$tmp/c.img"
stop_remote c
stop_server_within 3
continue_remote c
start_dmio_on_three 2
stop_remote c
client "write 0 4096 0x45 EIO" "read 0 4096 0x45"
[ "$(failed c)" -eq 1 ]
stop_server_within 3
continue_remote c
start_dmio_on_three 0
stop_remote a b c
for _ in 1 2 3 4; do client "read 0 4096 0 EIO"; done
sleep 0.5
stop_server_within 3
continue_remote a b c
start_dmio_on_three 0
stop_remote c
client "write 0 4096 0x46 EIO" &
client_pid=$!
sleep 0.3
stop_server_within 3
wait $client_pid
logged "$(region c).*does not answer.* 1 second"
same a.img b.img
