#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A recovery is interrupted again and again by SIGKILL of the server, or of the
# remote that is being recovered and of the server.  It goes on where it was, as
# the log says, which is not long before.  The leg is not in sync, and not read,
# before it has all.  (R6)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

MiB=1048576
size=$(( 160 * MiB ))
rate=$(( 8 * MiB ))             # per second
interruptions=4

start ()
{
  start_mirror timeout=1 log=log resync-rate=$rate read=first "$@"
}

# has_copied: something, since the last start.
has_copied ()
{
  local left
  left=$(status '.legs[] | select(.number == 1) | .out_of_sync')
  [ "$left" -le $(( lacking - 8 * MiB )) ]
}

random_file a.img $size
random_file b.img $size
start_counted_remote b
start init=sync a.img "${remote_uri[b]}"
lacking=$size
interrupted=0
for n in $(seq $interruptions); do
  wait_for has_copied
  nap 600
  [ "$(state 1)" = recovering ] || break        # a slow machine
  if [ $(( n % 2 )) -eq 0 ]; then
    kill_remote b
    restart_remote b
  fi
  kill_server
  # The leg that is behind is named first now.
  start "${remote_uri[b]}" a.img
  left=$(status '.legs[] | select(.number == 1) | .out_of_sync')
  [ "$left" -lt "$lacking" ]
  [ "$left" -gt 0 ] || break
  lacking=$left
  interrupted=$n
  offset=$(( $(random_below 159) * MiB ))
  bounded "$python" - "$uri" $offset <<'PYTHON'
import sys
import nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
offset = int(sys.argv[2])
with open("a.img", "rb") as f:
    f.seek(offset)
    assert h.pread(1 << 20, offset) == f.read(1 << 20)
PYTHON
done
[ $interrupted -ge 2 ]
wait_in_sync
stop_server
kill_remote b
same a.img b.img

# At most what a good second copies was copied twice, each time.
copied=$(bytes_of b Write)
echo "copied $copied of $size"
[ "$copied" -ge $size ]
[ "$copied" -le $(( size + interruptions * rate * 3 / 2 )) ]
