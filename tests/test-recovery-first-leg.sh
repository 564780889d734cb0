#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A leg that missed writes is never the source, whichever order the legs are
# named in, and the first of them is not special.  (R5, R9)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

start ()
{
  start_mirror timeout=1 log=log read=first "$@"
}

make_regions 8M a.img b.img c.img
for name in a b c; do
  start_counted_remote $name
done
start init=clean chunk=64K "${remote_uri[a]}" "${remote_uri[b]}"
client "write 0 1048576 0x41" flush
wait_in_sync

# The first fails while all are in sync: another takes over.
kill_remote a
client "write 0 65536 0x42" "read 0 65536 0x42" "read 65536 65536 0x41" flush
[ "$(state 0)" != "in sync" ]
[ "$(state 1)" = "in sync" ]
stop_server

# Stale, and named first: what it holds is never read, but replaced.
restart_remote a
start "${remote_uri[a]}" "${remote_uri[b]}"
client "read 0 65536 0x42"
wait_in_sync
holds a.img 0 65536 0x42
client "write 0 65536 0x43" flush
wait_in_sync

# The other way round, and the same with the order changed.
kill_remote b
client "write 0 65536 0x44" flush
stop_server
restart_remote b
start "${remote_uri[b]}" "${remote_uri[a]}"
client "read 0 65536 0x44"
wait_in_sync
stop_server
holds b.img 0 65536 0x44

# Both in sync: the order means nothing.
start "${remote_uri[b]}" "${remote_uri[a]}"
[ "$(status .in_sync)" -eq 2 ]
client "read 0 65536 0x44" "write 0 65536 0x45" flush
wait_in_sync

# One is out of sync when the other fails: errors, no old data.  The one that
# has all comes back, and all is well.
kill_remote b
client "write 0 65536 0x46" flush
kill_remote a
restart_remote b
client "read 0 65536 0 EIO" "write 0 65536 0x47 EIO"
logged 'last|only'
# The write that has failed may have reached the second, if that was just being
# recovered; what it did not get before that it has not.
holds b.img 0 65536 0x45 || holds b.img 0 65536 0x47
stop_server_within 3

# The stale one alone is refused, whatever the user says.
refused_mirror 'no region that is in sync is there: .*a\.sock.*b\.sock' \
               timeout=1 log=log "${remote_uri[a]}" "${remote_uri[b]}"
refused_mirror 'no region that is in sync is there: .*a\.sock.*b\.sock' \
               timeout=1 log=log degraded=yes \
               "${remote_uri[a]}" "${remote_uri[b]}"
restart_remote a
start "${remote_uri[b]}" "${remote_uri[a]}"
wait_in_sync
client "read 65536 65536 0x41"
stop_server
same a.img b.img

# A leg that was in sync is missing: that needs a word.
kill_remote b
refused_mirror 'degraded=yes' timeout=1 log=log \
               "${remote_uri[a]}" "${remote_uri[b]}"
start degraded=yes "${remote_uri[a]}" "${remote_uri[b]}"
client "write 0 65536 0x48" flush
stop_server
# From now on the log knows.
start "${remote_uri[b]}" "${remote_uri[a]}"
client "read 0 65536 0x48"
restart_remote b
wait_in_sync
stop_server
same a.img b.img

# A region that the mirror does not know is refused.
refused_mirror 'c\.sock' timeout=1 log=log "${remote_uri[a]}" "${remote_uri[c]}"
kill_remote a b c
