#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Block status of a volume with more extents than one answer takes, in regions
# that are files or on NBD servers, also from the middle of their file; the one
# extent of REQ_ONE; extents of a server that are not in whole sectors.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

pieces=200
piece=65536
size=$(( (2 * pieces + 1) * piece ))

# make FILE SHIFT: data in every second piece, from the second on, all moved by
# so many bytes.
make ()
{
  "$python" - "$1" "$2" $pieces $piece <<'PYTHON'
import sys
name, shift, pieces, piece = sys.argv[1], *map(int, sys.argv[2:])
with open(name, "wb") as f:
    f.truncate(shift + (2 * pieces + 1) * piece)
    for i in range(pieces):
        f.seek(shift + (2 * i + 1) * piece)
        f.write(b"\x55" * piece)
PYTHON
}

# What nbdinfo --map says of it.
for (( i = 0; i <= 2 * pieces; i++ )); do
  if [ $(( i % 2 )) -eq 1 ]; then
    echo "$(( i * piece )) $piece 0 data"
  else
    echo "$(( i * piece )) $piece 3 hole,zero"
  fi
done > expected.map

# check FILE [cut]: the volume has the extents in FILE, asked for in one go, and
# by REQ_ONE one after another, from different places; never more in an answer
# than was asked for.  Cut: an answer may be shorter than it could be.
check ()
{
  bounded nbdinfo --map "$uri" > raw.map
  awk '{ print $1, $2, $3, $4 }' raw.map | diff "$1" -
  bounded "$python" - "$uri" "$1" "${2:-}" <<'PYTHON'
import nbd, sys

cut = sys.argv[3] == "cut"

def extents(h, count, offset, flags=0):
    got = []
    def callback(context, offset, entries, error):
        got.extend(zip(entries[::2], entries[1::2]))
    h.block_status(count, offset, callback, flags)
    return got

h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
size = h.get_size()
with open(sys.argv[2]) as f:
    expected = [tuple(map(int, line.split()[:3])) for line in f]

for offset, length, flags in expected:
    for at in {offset, offset + 512, offset + length - 512}:
        if not offset <= at < offset + length:
            continue
        rest = offset + length - at
        for count in size - at, rest, 512:
            got = extents(h, count, at, nbd.CMD_FLAG_REQ_ONE)
            assert len(got) == 1 and got[0][1] == flags, (at, count, got)
            assert got[0][0] == min(rest, count) or \
                cut and got[0][0] < min(rest, count), (at, count, got)

# The first of several answers.
got = extents(h, size, 0)
assert len(got) > 1 or len(expected) == 1, got
assert sum(length for length, flags in got) <= size
if not cut:
    at = 0
    for (length, flags), wanted in zip(got, expected):
        assert (at, length, flags) == wanted, (at, length, flags, wanted)
        at += length
h.shutdown()
PYTHON
}

make a.img 0
make b.img 0
make c.img $piece
start_dmio a.img
check expected.map
stop_server
start_dmio a.img b.img c.img,sector=128
check expected.map
stop_server

# On servers, one of which says less at a time than is asked for.
start_remote a nbdkit file "$tmp/a.img"
start_remote b nbdkit --filter=blocksize file "$tmp/b.img" maxlen=1M
start_remote c qemu-nbd -f raw "$tmp/c.img"
for name in a b; do
  start_dmio "${remote_uri[$name]}"
  check expected.map
  stop_server
done
start_dmio "${remote_uri[c]},sector=128"
check expected.map
stop_server
start_dmio "${remote_uri[a]}" "${remote_uri[b]}" "${remote_uri[c]},sector=128"
check expected.map
stop_server
kill_remote a b c

# A sector that is partly data is data.
printf '%s\n' '0 1000 hole,zero' '1000 1048 data' '2048 512 hole,zero' \
       '2560 100 data' '2660 100 hole,zero' '2760 312 data' \
       '3072 2048 zero' '5120 4096 data' '9216 1039360 hole,zero' > list
start_remote d nbdkit --filter=extentlist memory 1M extentlist="$tmp/list"
printf '%s\n' '0 512 3 hole,zero' '512 1536 0 data' '2048 512 3 hole,zero' \
       '2560 512 0 data' '3072 2048 2 zero' '5120 4096 0 data' \
       '9216 1039360 3 hole,zero' > expected.map
start_dmio "${remote_uri[d]}"
check expected.map cut
stop_server
kill_remote d

# A server without block status: all may be data.
start_remote e nbdkit --no-sr memory $size
echo "0 $size 0 data" > expected.map
start_dmio "${remote_uri[e]}"
check expected.map
stop_server

# Extents that are finer than the blocks of the volume: data if any of a block
# is.  Otherwise the next request of a client would not begin with a block.
awk 'BEGIN { for (i = 0; i < 300; i++)
               print 1536 * i, 1536, i % 8 < 4 ? "data" : "hole,zero"
             print 460800, 587776, "data" }' > list
start_remote d nbdkit --filter=extentlist memory 1M extentlist="$tmp/list"
start_remote f nbdkit --filter=blocksize-policy memory 1M \
             blocksize-minimum=4096 blocksize-preferred=4096
start_dmio "${remote_uri[d]}" "${remote_uri[f]}" read=first
bounded nbdinfo --map "$uri" > raw.map
awk '$1 % 4096 || $2 % 4096 { exit 1 }' raw.map
bounded nbdcopy "$uri" null:
stop_server
