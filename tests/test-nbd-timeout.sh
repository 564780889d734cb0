#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# What the timeout is not for: much at once to a server that is slow but does
# what it is told; connections that a server has promised and does not accept;
# more seconds than the operating system can count.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires qemu-nbd qemu-utils
requires ss iproute2
set -x

# 30 MB/s, one after another, after what the filter lets pass at first, which is
# two seconds' worth.  What is in flight at a time takes about 1.4 s, and all of
# it much more than the timeout.
start_remote c nbdkit -t 1 --filter=rate memory 256M rate=240M
start_dmio timeout=3 "${remote_uri[c]}"
bounded "$python" - "$uri" <<'PYTHON'
import sys, time, nbd
SIZE, N = 8 << 20, 25
h = nbd.NBD()
h.connect_uri(sys.argv[1])
errors = []
def completed(error):
    errors.append(error.value)
    return 1
buffer = nbd.Buffer.from_bytearray(bytearray(SIZE))
begin = time.monotonic()
for i in range(N):
    h.aio_pwrite(buffer, i * SIZE, completed)
while len(errors) < N:
    assert h.poll(20000) == 1
seconds = time.monotonic() - begin
print(f"{seconds:.1f} s, {errors}")
assert not any(errors)
assert seconds > 4, "that was no test"
h.shutdown()
PYTHON
not_logged 'does not answer|lost'
stop_server_within 1
kill_remote c

# It has promised several connections, of which all but two hang.
truncate -s 4M c.img
start_remote c qemu-nbd --format=raw --shared=2 c.img
nbdinfo --can multi-conn "${remote_uri[c]}"
begin=${EPOCHREALTIME/./}
start_dmio timeout=20 "${remote_uri[c]}"
[ $(( (${EPOCHREALTIME/./} - begin) / 1000 )) -le $(( 2000 + $(slack) )) ]
client "write 0 4194304 0x41" "read 0 4194304 0x41" flush
not_logged 'lost|failed'
stop_server_within 2
kill_remote c
holds c.img 0 4194304 0x41

# keepalive TIME: the kernel watches the connections to the TCP server, too, and
# does so after about that time.
keepalive ()
{
  ss -Htno state established "dst ${remote_address[c]}" | tee ss.log
  [ -s ss.log ] && ! grep -vE "timer:\(keepalive,($1)," ss.log
}

start_tcp_remote 127.0.0.1 c nbdkit memory 4M
while read -r timeout time; do
  start_dmio timeout="$timeout" "${remote_uri[c]}"
  client "write 0 4096 0x42" "read 0 4096 0x42" flush
  wait_for keepalive "$time"
  stop_server_within 1
done <<'TABLE'
1     [0-9]+ms|1sec
86400 54[0-9]min
TABLE
