#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# SIGTERM ends the server in bounded time and without an error, with no client
# ever, with clients that have just gone, politely or not, and with an idle one
# that goes afterwards.  Where an idle one stays, SIGKILL does no harm.  Many
# connections leave nothing behind: no descriptor, no thread, no lock.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

make_regions 4M a.img b.img

# No client but the one that waited for the server; five times, as the locks
# have to be gone each time.
for _ in 1 2 3 4 5; do
  start_dmio a.img b.img
  SECONDS=0
  stop_server
  [ $SECONDS -le 20 ]
done

# A client that wrote and has just gone.
start_dmio a.img b.img
client "write 0 65536 0x51" flush
stop_server
holds a.img 0 65536 0x51
same a.img b.img

# Clients that were killed while idle, with writes acknowledged.
start_dmio a.img b.img
cat > idle.py <<'PYTHON'
import nbd, signal, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"\x52" * 65536, 65536)
print("idle", flush=True)
signal.pause()
PYTHON
# start_idle: a client that has written and stays; kill_idle: no longer.
start_idle ()
{
  rm -f idle.log
  "$python" idle.py "$uri" > idle.log &
  idle_pid=$!
  servers+=("$idle_pid")
  wait_for grep -q idle idle.log
}
kill_idle ()
{
  kill -KILL "$idle_pid"
  forget_server "$idle_pid"
  wait "$idle_pid" || true
}
for _ in 1 2 3; do
  start_idle
  kill_idle
done
stop_server
holds a.img 65536 65536 0x52
same a.img b.img

# An idle client that is there when the signal comes: nbdkit waits for it, and
# ends when it goes.
start_dmio a.img b.img
start_idle
ask_to_end "$server_pid"
kill_idle
wait_for has_ended "$server_pid"
forget_server "$server_pid"
wait "$server_pid"

# The same, but the client stays, and the server is killed after some seconds: the
# log says then that nothing is left to do.
start_mirror a.img b.img init=sync
wait_in_sync
start_idle
ask_to_end "$server_pid"
sleep 1
! has_ended "$server_pid" || die "nbdkit does not wait for its clients"
is_clean ()
{
  dmioctl log a.img.dmlog > log.text && grep -q '^0 bytes dirty:' log.text
}
wait_for is_clean
kill_server
kill_idle
start_mirror a.img b.img
not_logged 'did not end in order'
wait_in_sync
stop_server
same a.img b.img
rm a.img.dmlog b.img.dmlog

# Many connections, some with requests of every kind.
descriptors ()
{
  find "/proc/$server_pid/fd" -mindepth 1 | wc -l
}
threads ()
{
  find "/proc/$server_pid/task" -mindepth 1 -maxdepth 1 | wc -l
}
# no_more DESCRIPTORS THREADS: the library keeps the few threads it needed.
no_more ()
{
  [ "$(descriptors)" -le "$1" ] && [ "$(threads)" -le "$2" ]
}
start_dmio a.img b.img
hundred ()
{
  bounded "$python" - "$uri" <<'PYTHON'
import nbd, sys
for i in range(100):
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    if i % 5 == 0:
        h.pwrite(b"\x53" * 4096, 0, nbd.CMD_FLAG_FUA)
        h.zero(4096, 4096)
        h.trim(4096, 8192)
        h.flush()
        h.pread(65536, 0)
    if i % 2:
        h.shutdown()
    del h
PYTHON
}
hundred
wait_for no_more 30 16
before=$(descriptors)
hundred
hundred
wait_for no_more "$before" 16
stop_server
same a.img b.img

# Started again at once, so nothing is locked.
start_dmio a.img b.img
stop_server
