#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Clients that vanish with requests outstanding, or in the middle of a request.
# The server goes on, or ends by the one assertion that nbdkit 1.32.4 to 1.33.9
# is known for (raw_send_socket).  Either way nothing outside the ranges that
# were being written has changed, each sector inside holds something whole that
# was written there, and a new server serves the same regions.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires nbdcopy libnbd-bin
set -x

MiB=1048576
model=("${no_aslr[@]}" "$builddir/client-model")

# The server's end is known to be bad.
expect_known_assertion ()
{
  local status=0
  forget_server "$server_pid"
  wait "$server_pid" || status=$?
  [ $status -eq 134 ]
  logged "raw_send_socket: Assertion"
  # Two threads may fail it at once, but there is no other.
  ! grep 'Assertion' "$server_log" | grep -v 'raw_send_socket: Assertion' ||
    die "an unknown assertion"
  no_sanitizer_findings
}

# start_unless_running: what is left of the server, or a new one.
start_unless_running ()
{
  if has_ended "$server_pid"; then
    expect_known_assertion
    crashes=$(( crashes + 1 ))
    start_dmio a.img b.img
  fi
}

random_file image 16M
cp image a.img
cp image b.img
start_dmio a.img b.img
crashes=0

tail_at=$(( 8 * MiB - 65536 ))

# The client first makes all of the range zero, up to the end, and then writes there.
prepare ()
{
  for file in a.img b.img; do
    dd if=image of=$file bs=64k skip=127 seek=127 count=1 conv=notrunc status=none
  done
}
is_writing ()
{
  ! cmp -s -n 65536 a.img image $tail_at $tail_at &&
    ! cmp -s -n 65536 b.img image $tail_at $tail_at &&
    ! cmp -s -n $(( 4 * MiB )) a.img /dev/zero $(( 4 * MiB )) 0
}

# The range from 4 to 8 MiB is being written when the client is killed.
for _ in 1 2 3 4 5; do
  prepare
  "${model[@]}" -r $(( 4 * MiB )):$(( 4 * MiB )) -t 60 "$uri" &
  client_pid=$!
  servers+=("$client_pid")
  wait_for is_writing
  sleep 0.3
  kill -KILL "$client_pid"
  forget_server "$client_pid"
  wait "$client_pid" || true
  sleep 0.2
  start_unless_running
done

# Half a write, by hand: 64 KiB are announced at 12 MiB, 32 KiB are sent.
# Nothing of it may reach a region.
bounded "$python" - "$server_socket" <<'PYTHON'
import socket, struct, sys
for sent in 0, 1, 512, 32768, 65535:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(sys.argv[1])
    def read(n):
        data = b""
        while len(data) < n:
            more = s.recv(n - len(data))
            assert more, "the server hung up"
            data += more
        return data
    assert read(18)[:16] == b"NBDMAGICIHAVEOPT"
    # Flags: fixed newstyle, no zeroes; option: export name "".
    s.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
    size, flags = struct.unpack(">QH", read(10))
    assert size == 16 << 20
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 12 << 20, 65536) +
              b"\x77" * sent)
    s.close()
PYTHON
sleep 0.2
start_unless_running
bounded nbdcopy "$uri" - > /dev/null
stop_server

# Outside the range nothing has changed, whatever happened.
for file in a.img b.img; do
  [ "$(stat -c %s $file)" -eq $(( 16 * MiB )) ]
  cmp -n $(( 4 * MiB )) $file image
  cmp -i $(( 8 * MiB )) $file image
done
# If the server never crashed, all it had begun it has done on both.
[ $crashes -gt 0 ] || same a.img b.img
# Inside, each sector is zero or whole and in its place: see client-model.c.
bounded "$python" - a.img b.img <<'PYTHON'
import struct, sys
written = 0
for name in sys.argv[1:]:
    with open(name, "rb") as f:
        f.seek(4 << 20)
        for sector in range(8192):
            words = struct.unpack("=64Q", f.read(512))
            if any(words):
                written += 1
                assert words[0] >> 32 and words[0] >> 6 & 0x3ffffff == sector
                assert words == tuple(range(words[0], words[0] + 64))
assert written > 0
PYTHON

# The next server makes them alike again where it writes.
start_dmio a.img b.img
bounded "${model[@]}" -t 2 "$uri"
stop_server
same a.img b.img
