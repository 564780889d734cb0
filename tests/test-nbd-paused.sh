#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The server itself is stopped for longer than the timeout, while its remote
# answers: when it goes on, the answers that have come are what counts, not the
# clock.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_python_nbd
set -x

make_regions 4M a.img
start_remote a nbdkit --filter=delay file "$tmp/a.img" delay-write=300ms
start_dmio "${remote_uri[a]}" timeout=1

# Eight writes in flight, answered while nobody reads the answers.
bounded "$python" -c '
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
data = nbd.Buffer.from_bytearray(bytearray(b"\x51" * 4096))
cookies = [h.aio_pwrite(data, i * 4096) for i in range(8)]
print("sent", flush=True)
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
h.shutdown()' "$uri" > client.out &
client=$!
wait_for grep -q sent client.out
sleep 0.15
kill -STOP "$server_pid"
sleep 2.5
kill -CONT "$server_pid"
wait "$client" || die "a write failed"
not_logged 'lost its connection'
stop_server
kill_remote a
holds a.img 0 32768 0x51
