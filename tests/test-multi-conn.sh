#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Row N2: the server advertises multi-conn and keeps what that promises.  What
# is written on one connection is read on another at once, and a flush on one
# connection makes durable what was acknowledged on another.
#
# The same way FUA requests are shown to be durable when they are answered.
#
# That a region is synced is seen by strace: killing a process alone loses
# nothing, so it would prove nothing.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires strace strace
set -x

make_regions 4M a.img b.img c.img
# The tracer is a child of the server (-D), so that the server gets our signals.
# Leaks cannot be looked for in a process that is traced.
launcher=(env "ASAN_OPTIONS=detect_leaks=0:${ASAN_OPTIONS:-}"
          strace -D -f -qq -y -e 'trace=fsync,fdatasync,pwritev2' -o strace.log)
start_dmio a.img b.img c.img
nbdinfo --can multi-conn "$uri"

bounded "$python" - "$uri" "$tmp/strace.log" <<'PYTHON'
import nbd, re, sys

uri, trace = sys.argv[1:]
one, two = nbd.NBD(), nbd.NBD()
for h in one, two:
    h.connect_uri(uri)
    assert h.can_multi_conn()
    assert h.can_flush()

def synced():
    """The regions that were synced since the last call."""
    text = open(trace).read()
    fresh, synced.seen = text[synced.seen:], len(text)
    return set(re.findall(r"f(?:data)?sync\(\d+<[^>]*/(\w+\.img)>", fresh) +
               re.findall(r"pwritev2\(\d+<[^>]*/(\w+\.img)>.*RWF_D?SYNC",
                          fresh))
synced.seen = 0

regions = {"a.img", "b.img", "c.img"}
for i in range(1, 50):
    data = bytes([i]) * 65536
    one.pwrite(data, (i % 7) * 65536)
    assert two.pread(65536, (i % 7) * 65536) == data
    two.zero(65536, (i % 7) * 65536)
    assert one.pread(65536, (i % 7) * 65536) == bytes(65536)
assert synced() == set(), "synced without being asked"

one.pwrite(b"1" * 4096, 0)
two.flush()
assert synced() == regions, "a flush on the other connection"

# With nothing written on the connection that flushes, ever.
three = nbd.NBD()
three.connect_uri(uri)
two.pwrite(b"2" * 4096, 4096)
one.trim(4096, 8192)
three.flush()
assert synced() == regions, "a flush on a new connection"

one.pwrite(b"3" * 4096, 0, nbd.CMD_FLAG_FUA)
assert synced() == regions, "FUA write"
one.zero(4096, 0, nbd.CMD_FLAG_FUA)
assert synced() == regions, "FUA zero"
one.zero(4096, 4096, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
assert synced() == regions, "FUA zero without hole"
one.trim(4096, 8192, nbd.CMD_FLAG_FUA)
assert synced() == regions, "FUA trim"

for h in one, two, three:
    h.shutdown()
PYTHON

stop_server
same a.img b.img c.img
