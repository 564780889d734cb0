#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Each command of dmioctl: what it does, prints and returns.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
requires script bsdutils
set -x

# fails CAUSE ARGUMENT...: status 1, and a line on stderr, nothing on stdout.
fails ()
{
  local status=0
  bounded "${no_aslr[@]}" "$DMIOCTL" "${@:2}" > out.text 2> error.text ||
    status=$?
  cat out.text error.text
  [ $status -eq 1 ]
  [ ! -s out.text ]
  grep -E "^dmioctl: .*$1" error.text
}

# Not understood, or nobody there.
fails 'what to do: status, wait, fail, add or log'
fails 'unknown command .x.' x
fails 'unknown command .x.' -s "$control" x status
fails 'one LEG' -s "$control" fail
fails 'one SPEC' -s "$control" add a.img b.img
fails 'no argument' -s "$control" status 1
fails '-s SOCKET.*control=' status
fails 'nosuch\.sock.*No such file.*control=' -s nosuch.sock status
fails 'nosuch\.sock.*No such file.*control=' -s nosuch.sock wait --timeout 1
fails '--timeout=-1' -s "$control" wait --timeout=-1
fails 'help' -s "$control" wait --timeout=x
fails 'help' -s "$control" --nonsense status
bounded "${no_aslr[@]}" "$DMIOCTL" --version | grep -Ex 'dmioctl [0-9.]+'
bounded "${no_aslr[@]}" "$DMIOCTL" --help > help.text
for word in status wait fail add log --json --timeout --socket; do
  grep -e "$word" help.text
done

# status, for people.
make_regions 64M a.img 'b b.img' c.img
start_mirror a.img 'b b.img' init=clean
dmioctl status > status.text
cat > expected.text <<TEXT
volume 64 MiB, 2 of 2 legs in sync
region 0   a.img    in sync
region 1   b b.img  in sync
log $(status .uuid), 2 of 2 copies in use: $tmp/a.img.dmlog, $tmp/b b.img.dmlog
TEXT
diff expected.text status.text

# ... and for programs: all that there is, with its type.
dmioctl status --json > status.json
jq -e --arg tmp "$tmp" '
  (.uuid | test("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")) and
  .size == 67108864 and .chunk_size == 1048576 and .quorum == 1 and
  .in_sync == 2 and .degraded == false and .to_reconcile == 0 and
  .rate == 0 and .log == {"copies": 2, "all": 2, "places": [
    {"number": 0, "place": "\($tmp)/a.img.dmlog", "in_use": true},
    {"number": 1, "place": "\($tmp)/b b.img.dmlog", "in_use": true}]} and
  (.legs | length) == 2 and
  .legs[1] == {"number": 1, "spec": "b b.img", "state": "in sync",
               "out_of_sync": 0, "progress": 100, "reason": null,
               "by_user": false}' status.json
dmioctl wait
dmioctl wait --timeout 0

# fail: by number and by name; not the last one.
client "write 0 8388608 0x61" flush
dmioctl fail 1 > fail.text
grep -E '^volume 64 MiB, 1 of 2 legs in sync, degraded$' fail.text
grep -E '^region 1   b b.img  failed   failed by the user' fail.text
[ "$(status '.legs[1].by_user')" = true ]
[ "$(status '.legs[1].reason')" != null ]
[ "$(status '.legs[0].by_user')" = false ]
client "write 0 4096 0x62" flush
[ "$(status '.legs[1].out_of_sync')" -ge 1048576 ]
dmioctl status | grep -E '^region 1 .* MiB out of sync$'
fails 'last in sync.*add another' -s "$control" fail 0
fails 'last in sync' -s "$control" fail a.img
fails 'no leg .*/c\.img.*status' -s "$control" fail c.img
fails 'no leg .2.' -s "$control" fail 2
fails 'not in sync yet: 1 of 2' -s "$control" wait --timeout 0.2

# Failed by the user, it stays so over a restart.
stop_server
start_mirror a.img 'b b.img'
[ "$(state 1)" = failed ]
holds 'b b.img' 0 4096 0x61

# add: by number, by name, by another name of the same file.
dmioctl add 1
wait_in_sync
[ "$(state 1)" = 'in sync' ]
holds 'b b.img' 0 4096 0x62
dmioctl fail "$PWD/b b.img"
dmioctl add './b b.img'
wait_in_sync
dmioctl fail 'b b.img'
dmioctl add "$PWD/../${PWD##*/}/b b.img"
wait_in_sync
fails 'is a leg already' -s "$control" add 1
fails 'absolute path|No such|leg' -s "$control" add 7
fails 'unknown option' -s "$control" add c.img,nonsense=1
fails 'No such file' -s "$control" add missing.img
fails 'empty' -s "$control" add ''
[ "$(status '.legs | length')" -eq 2 ]
stop_server

# A bar on a terminal: it never goes back, and ends with 100 %.
start_mirror a.img 'b b.img' resync-rate=2M
random_file random 8M
dmioctl fail 1
bounded nbdcopy random "$uri"
dmioctl add 1
bounded script -qec "${no_aslr[*]} $DMIOCTL -s $control wait" bar.text < /dev/null
wait_in_sync 0
tr '\r' '\n' < bar.text | sed -n 's/.*\] *\([0-9]*\) %.*/\1/p' > percent.text
cat percent.text
sort -n -c percent.text
[ "$(tail -n 1 percent.text)" -eq 100 ]
[ "$(sort -un percent.text | wc -l)" -ge 3 ]
stop_server
cmp a.img 'b b.img'

# Without a log there is nothing to fail or to add.
start_mirror a.img 'b b.img' log=none
dmioctl status | grep -x 'no log: nothing that fails is remembered'
[ "$(status .uuid)" = null ]
dmioctl wait
fails 'log=none' -s "$control" fail 1
fails 'log=none' -s "$control" add c.img
stop_server

# A server that ends the connection, before or after it has read what is asked of it.
for reads in 0 1; do
  bounded "$python" - "$reads" <<'SERVER' &
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("begins.sock")
    listener.listen()
    os.rename("begins.sock", "ends.sock")
    connection, _ = listener.accept()
    if sys.argv[1] == "1":
        connection.recv(1)
    connection.close()
SERVER
  pid=$!
  wait_for [ -S ends.sock ]
  fails 'the server has ended the connection' -s ends.sock status
  wait "$pid"
  rm ends.sock
done
