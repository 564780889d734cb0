#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A leg was away while one percent of a volume of 10 GiB changed.  When it is
# back, less than 1.5 times that is copied, rounded to chunks: as its server
# counts it.  The same if the server with the plugin was stopped meanwhile.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

chunk=$(( 1 << 20 ))

# change: writes a percent of the volume, in pieces of up to 1 MiB anywhere, and
# prints the bytes of the chunks in which they are.
change ()
{
  bounded "$python" - "$uri" $chunk <<'PYTHON'
import os, random, sys
import nbd

h = nbd.NBD()
h.connect_uri(sys.argv[1])
chunk = int(sys.argv[2])
size = h.get_size()
chunks, left = set(), size // 100 // 4096 * 4096
while left > 0:
    length = min(left, random.randrange(1, 257) * 4096)
    offset = random.randrange((size - length) // 4096 + 1) * 4096
    h.pwrite(os.urandom(length), offset)
    chunks.update(range(offset // chunk, (offset + length - 1) // chunk + 1))
    left -= length
h.flush()
h.shutdown()
print(len(chunks) * chunk)
PYTHON
}

# little_was_copied CHANGED
little_was_copied ()
{
  local copied
  copied=$(bytes_of b Write)
  echo "changed: $1, copied: $copied"
  [ "$copied" -ge $(( 10 * 1073741824 / 100 / 2 )) ]
  [ $(( copied * 2 )) -lt $(( $1 * 3 )) ]
  [ $(( $(bytes_of b Zero) * 2 )) -lt $(( $1 * 3 )) ]
}

# The extents of both, with the data and without the holes.
same_data ()
{
  bounded qemu-img compare -q -f raw -F raw a.img b.img
}
requires qemu-img qemu-utils

make_regions 10G a.img b.img
start_counted_remote b
start_mirror init=clean timeout=2 a.img "${remote_uri[b]}"
[ "$(status .chunk_size)" -eq $chunk ]
change
wait_in_sync

# The remote is away.
kill_remote b
: > b.ops
changed=$(change)
[ "$(state 0)" = "in sync" ]
[ "$(state 1)" != "in sync" ]
restart_remote b
wait_in_sync
little_was_copied "$changed"

# The server is started without it, and stopped, before it comes back.
kill_remote b
: > b.ops
changed=$(change)
stop_server
start_mirror timeout=2 a.img "${remote_uri[b]}"
[ "$(state 1)" != "in sync" ]
stop_server
restart_remote b
start_mirror timeout=2 a.img "${remote_uri[b]}"
wait_in_sync
little_was_copied "$changed"
stop_server
kill_remote b
same_data
