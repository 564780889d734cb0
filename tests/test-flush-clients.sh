#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The only leg loses its cache, with acknowledged writes of two clients in it.  The
# next flush of each of them fails, once: a success would vouch for what is gone.  So
# does the first flush of one who comes later, if nobody has heard of it yet.  (F1)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 8M a.img
start_remote a nbdkit --filter=cache file "$tmp/a.img" cache=writeback
start_mirror init=clean log=log timeout=3 "${remote_uri[a]}"

# Two clients that write, and wait for a line before they go on.
cat > two.py << 'END'
import nbd
import sys

def flush(name, h):
    try:
        h.flush()
        print(name, "ok", flush=True)
    except nbd.Error:
        print(name, "failed", flush=True)

def connect():
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    return h

first, second = connect(), connect()
first.pwrite(b"1" * 4096, 0)
second.pwrite(b"2" * 4096, 4096)
print("written", flush=True)
sys.stdin.readline()
later = connect()
first.pwrite(b"3" * 4096, 8192)
for i in range(2):
    flush("first", first)
for i in range(2):
    flush("second", second)
flush("later", later)
flush("last", connect())
for h in (first, second, later):
    h.shutdown()
END

mkfifo go
bounded "$python" two.py "$uri" < go > two.out &
client_pid=$!
exec 7> go
wait_for grep -q written two.out
kill_remote a
restart_remote a
wait_for logged 'is used again'
wait_for client "read 1048576 512 0"
echo >&7
exec 7>&-
wait $client_pid
diff two.out - << 'END'
written
first failed
first ok
second failed
second ok
later failed
last ok
END

client "read 8192 4096 0x33"
stop_server
kill_remote a
