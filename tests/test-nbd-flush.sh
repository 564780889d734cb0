#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# When a flush or a FUA request has been answered, each server has been told
# to make durable all that was acknowledged before, on whichever connection
# that was.  What was not flushed is lost at a power cut, which is a cache
# that is killed.  There are several connections, but one only with a server
# that does not offer multi-conn.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 8M a.img b.img c.img
start_remote a nbdkit --filter=log file "$tmp/a.img" logfile="$tmp/a.requests"
start_remote b nbdkit --filter=log --filter=multi-conn file "$tmp/b.img" \
             logfile="$tmp/b.requests" multi-conn-mode=disable
start_remote c nbdkit --filter=log --filter=fua file "$tmp/c.img" \
             logfile="$tmp/c.requests"
start_dmio "${remote_uri[a]}" "${remote_uri[b]}" "${remote_uri[c]}"

bounded "$python" - "$uri" "$tmp" <<'PYTHON'
import nbd, re, sys

uri, tmp = sys.argv[1:]
one, two, three = nbd.NBD(), nbd.NBD(), nbd.NBD()
for h in one, two, three:
    h.connect_uri(uri)

seen = {}
def flushed(name):
    """All changes since the last call have FUA, or had been done when a flush
    began."""
    text = open(f"{tmp}/{name}.requests").read()
    fresh, seen[name] = text[seen.get(name, 0):], len(text)
    under_way, done = {}, set()
    for connection, ended, kind, number, rest in re.findall(
            r"connection=(\d+) (\.\.\.)?(\w+) id=(\d+) (.*)", fresh):
        request = connection, number
        if kind in ("Write", "Zero", "Trim"):
            if not ended:
                under_way[request] = rest
            elif "fua=1" not in under_way.pop(request):
                done.add(request)
        elif kind == "Flush" and not ended:
            done.clear()
    return not under_way and not done

for name in "abc":
    flushed(name)
for i in range(20):
    many = [(h, n) for n in range(8) for h in (one, two)]
    for h, n in many:
        h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(4096)),
                     (16 * i + n) * 4096)
    for h in one, two:
        while h.aio_in_flight():
            h.poll(-1)
    three.flush()
    for name in "abc":
        assert flushed(name), name

one.pwrite(bytes(65536), 0, nbd.CMD_FLAG_FUA)
for name in "abc":
    assert flushed(name), name
one.zero(65536, 0, nbd.CMD_FLAG_FUA)
for name in "abc":
    assert flushed(name), name
one.trim(65536, 0, nbd.CMD_FLAG_FUA)
for name in "abc":
    assert flushed(name), name
# The test would notice.
one.pwrite(bytes(4096), 0)
for name in "abc":
    assert not flushed(name), name
for h in one, two, three:
    h.shutdown()
PYTHON
[ "$(grep -c ' Connect ' a.requests)" -gt 1 ]
[ "$(grep -c ' Connect ' b.requests)" -eq 1 ]
stop_server
same a.img b.img c.img

# The power cut.
kill_remote a b c
make_regions 8M a.img b.img c.img
for name in a b; do
  start_remote $name nbdkit --filter=cache file "$tmp/$name.img" cache=writeback
done
start_dmio "${remote_uri[a]}" "${remote_uri[b]}"
client "write 0 65536 0x51" "write 1048576 4096 0x52" flush \
       "write,fua 2097152 65536 0x53" "zero 0 4096" "trim 4096 4096" flush \
       "write 4194304 65536 0x54"
kill_remote a b
for name in a b; do
  holds $name.img 0 8192 0
  holds $name.img 8192 57344 0x51
  holds $name.img 1048576 4096 0x52
  holds $name.img 2097152 65536 0x53
  holds $name.img 4194304 65536 0
done
stop_server_within 30
