#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Row N1: each kind of request with each of its flags, and the borders of what
# a request may be, by libnbd: FUA, zero with and without unmapping, fast zero,
# trim, block status, cache, lengths from nothing to 64 MiB, requests that are
# not aligned or leave the volume.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
set -x

cat > common.py <<'PYTHON'
import errno, nbd, os, sys

MiB = 1024 * 1024

def connect(uri, strict=True):
    h = nbd.NBD()
    if not strict:
        h.set_strict_mode(0)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    return h

def expect(number, function, *args):
    try:
        function(*args)
    except nbd.Error as e:
        got = e.errnum or errno.EIO
        assert got == number, \
            f"{errno.errorcode[got]} instead of {errno.errorcode[number]}"
    else:
        raise AssertionError(f"no {errno.errorcode[number]}")

def extents(h, count, offset, flags=0):
    got = []
    def callback(context, offset, entries, error):
        got.extend(zip(entries[::2], entries[1::2]))
    h.block_status(count, offset, callback, flags)
    return got

def blocks(path):
    return os.stat(path).st_blocks * 512
PYTHON
export PYTHONPATH=$tmp PYTHONDONTWRITEBYTECODE=1

make_regions 128M a.img b.img c.img
start_dmio a.img b.img c.img

bounded "$python" - "$uri" <<'PYTHON'
from common import *
h = connect(sys.argv[1])
files = "a.img", "b.img", "c.img"

# What is offered.
assert h.get_size() == 128 * MiB
for can in (h.can_flush, h.can_fua, h.can_trim, h.can_zero, h.can_fast_zero,
            h.can_cache, h.can_df, h.can_multi_conn):
    assert can(), can
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
assert not h.is_read_only()
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
preferred = h.get_block_size(nbd.SIZE_PREFERRED)
assert preferred >= 512 and preferred & (preferred - 1) == 0
assert h.get_block_size(nbd.SIZE_MAXIMUM) >= 32 * MiB

def region(name, count, offset):
    with open(name, "rb") as f:
        f.seek(offset)
        return f.read(count)

def check(data, offset):
    assert h.pread(len(data), offset) == data
    for name in files:
        assert region(name, len(data), offset) == data, name

# Writes, with and without FUA; one sector, and as much as a client may send.
for flags in 0, nbd.CMD_FLAG_FUA:
    for count, offset in ((512, 0), (512, 128 * MiB - 512), (4096, 4608),
                          (65536, 512), (3 * MiB, 5 * MiB + 1024)):
        data = os.urandom(count)
        h.pwrite(data, offset, flags)
        check(data, offset)
big = os.urandom(64 * MiB)
for flags in 0, nbd.CMD_FLAG_FUA:
    h.pwrite(big, 33 * MiB + 512, flags)
    assert h.pread(64 * MiB, 33 * MiB + 512) == big
    check(big[:MiB], 33 * MiB + 512)
    check(big[-MiB:], 97 * MiB + 512 - MiB)
    h.zero(64 * MiB, 33 * MiB + 512)

# Zeroes: may be unmapped (the default), or must stay allocated.
for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO,
              nbd.CMD_FLAG_FUA,
              nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA):
    h.pwrite(b"\xaa" * 8 * MiB, 0)
    full = [blocks(name) for name in files]
    h.zero(4 * MiB - 1024, 512, flags)
    check(b"\xaa" * 512 + bytes(4 * MiB - 1024) + b"\xaa" * 512, 0)
    h.flush()
    for name, before in zip(files, full):
        if flags & nbd.CMD_FLAG_NO_HOLE:
            assert blocks(name) >= before, name
        else:
            assert blocks(name) < before - 3 * MiB, name
h.zero(128 * MiB, 0)
check(bytes(MiB), 0)

# Zeroes that must stay allocated and be quick cannot be had: refused before any
# region is touched.
h.pwrite(b"\xab" * 65536, 0)
expect(errno.ENOTSUP, h.zero, 65536, 0,
       nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
check(b"\xab" * 65536, 0)

# Trim: the space comes back, and here, where every region can, the sectors
# read as zero.
for flags in 0, nbd.CMD_FLAG_FUA:
    h.pwrite(b"\xbb" * 8 * MiB, 8 * MiB)
    full = [blocks(name) for name in files]
    h.trim(4 * MiB, 9 * MiB, flags)
    check(b"\xbb" * 512 + bytes(4 * MiB) + b"\xbb" * 512, 9 * MiB - 512)
    for name, before in zip(files, full):
        assert blocks(name) < before - 3 * MiB, name

# Block status: what is data and what is not, only inside what was asked for.
h.zero(128 * MiB, 0)
h.pwrite(b"\xcc" * MiB, 16 * MiB)
assert extents(h, 128 * MiB, 0) == \
    [(16 * MiB, 3), (MiB, 0), (111 * MiB, 3)], extents(h, 128 * MiB, 0)
assert extents(h, 2 * MiB, 15 * MiB) == [(MiB, 3), (MiB, 0)]
assert extents(h, 512, 16 * MiB - 512) == [(512, 3)]
assert extents(h, 512, 16 * MiB) == [(512, 0)]
one = extents(h, 128 * MiB, 0, nbd.CMD_FLAG_REQ_ONE)
assert one == [(16 * MiB, 3)], one
one = extents(h, 2 * MiB, 16 * MiB, nbd.CMD_FLAG_REQ_ONE)
assert one == [(MiB, 0)], one

# Cache changes nothing.
before = h.pread(2 * MiB, 16 * MiB)
h.cache(128 * MiB, 0)
h.cache(512, 512)
assert h.pread(2 * MiB, 16 * MiB) == before

# Beyond the end of the volume.
raw = connect(sys.argv[1], strict=False)
for offset in 128 * MiB, 128 * MiB - 512, 2 ** 40:
    expect(errno.EINVAL, raw.pread, 1024, offset)
    expect(errno.ENOSPC, raw.pwrite, bytes(1024), offset)
    expect(errno.ENOSPC, raw.zero, 1024, offset)
    expect(errno.EINVAL, raw.trim, 1024, offset)
    expect(errno.EINVAL, raw.cache, 1024, offset)
    expect(errno.EINVAL, raw.block_status, 1024, offset, lambda *a: 0)

# Nothing at all: refused or done, but the server goes on.
for function, args in ((raw.pread, (0, 0)), (raw.pwrite, (b"", 0)),
                       (raw.zero, (0, 0)), (raw.trim, (0, 0)),
                       (raw.cache, (0, 0)),
                       (raw.block_status, (0, 0, lambda *a: 0))):
    try:
        function(*args)
    except nbd.Error as e:
        assert e.errnum in (errno.EINVAL, errno.ENOSPC), e
assert raw.pread(2 * MiB, 16 * MiB) == before

# Not aligned: refused, and nothing is touched.
for count, offset in (1, 16 * MiB), (511, 0), (513, 512), (512, 1), \
                     (4096, 16 * MiB + 256):
    expect(errno.EINVAL, raw.pread, count, offset)
    expect(errno.EINVAL, raw.pwrite, b"\xdd" * count, offset)
    expect(errno.EINVAL, raw.zero, count, offset)
    expect(errno.EINVAL, raw.trim, count, offset)
    expect(errno.EINVAL, raw.cache, count, offset)
assert raw.pread(2 * MiB, 16 * MiB) == before
check(bytes(16 * MiB), 0)
check(before, 16 * MiB)

# A server that reports more than it was asked for ends the connection, and so
# it is still there.
assert h.get_size() == 128 * MiB
h.shutdown()
raw.shutdown()
PYTHON

# What the server said about the requests that were not aligned.
for op in read write 'write zeroes' discard cache; do
  logged "$op of 1 bytes at offset 16777216 .*--filter=blocksize"
done
stop_server
same a.img b.img c.img

# The remedy which the message names.
start_dmio --filter=blocksize a.img b.img c.img
bounded "$python" - "$uri" <<'PYTHON'
from common import *
h = connect(sys.argv[1], strict=False)
h.pwrite(b"unaligned", 12345)
assert h.pread(9, 12345) == b"unaligned"
h.shutdown()
PYTHON
stop_server
same a.img b.img c.img

# An extent of 4 GiB or more would abort nbdkit.
make_regions 9G a.img b.img
start_dmio a.img b.img
bounded "$python" - "$uri" <<'PYTHON'
from common import *
h = connect(sys.argv[1])
most = 4096 * MiB - 512
for offset in 0, 512, 9 * 1024 * MiB - most:
    assert extents(h, most, offset) == [(most, 3)]
    h.zero(most, offset)
    h.trim(most, offset)
    h.cache(most, offset)
h.pwrite(b"\xee" * 512, 6 * 1024 * MiB)
got = extents(h, most, 3 * 1024 * MiB)
assert got[0] == (3 * 1024 * MiB, 3), got
assert sum(length for length, flags in got) <= most, got
assert h.pread(1024, 6 * 1024 * MiB) == b"\xee" * 512 + bytes(512)
h.shutdown()
PYTHON
stop_server
cmp -n 1M a.img b.img 6G 6G

# A region that cannot punch holes: fast zero is not offered.  (nbdkit 1.32
# aborts when a client asks for it all the same.)  /dev/full also fails whatever
# is written, but not before the other regions have it.
make_regions 1M a.img b.img
start_dmio a.img /dev/full b.img
bounded "$python" - "$uri" <<'PYTHON'
from common import *
h = connect(sys.argv[1], strict=False)
assert h.get_size() == MiB
assert not h.can_fast_zero()
expect(errno.ENOSPC, h.pwrite, b"\xff" * 65536, 0)
for name in "a.img", "b.img":
    with open(name, "rb") as f:
        assert f.read(65536) == b"\xff" * 65536, name
# Trim leaves the same on all regions: here, it does nothing.
h.trim(4096, 4096)
for name in "a.img", "b.img":
    with open(name, "rb") as f:
        assert f.read(65536) == b"\xff" * 65536, name
# Without the flag, zeroes are written.
expect(errno.ENOSPC, h.zero, 4096, 4096)
for name in "a.img", "b.img":
    with open(name, "rb") as f:
        assert f.read(65536) == \
            b"\xff" * 4096 + bytes(4096) + b"\xff" * 57344, name
h.shutdown()
PYTHON
stop_server
same a.img b.img

# The same where each region can take it: /dev/zero swallows everything.
make_regions 1M a.img b.img
start_dmio a.img /dev/zero b.img
bounded "$python" - "$uri" <<'PYTHON'
from common import *
h = connect(sys.argv[1], strict=False)
assert not h.can_fast_zero()
h.pwrite(b"\xff" * 65536, 0)
h.trim(4096, 4096)
for flags in 0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA:
    h.zero(8192, 8192, flags)
h.flush()
assert h.pread(65536, 0) == \
    b"\xff" * 8192 + bytes(8192) + b"\xff" * 49152
h.shutdown()
PYTHON
stop_server
same a.img b.img
