#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Without -f nbdkit goes into the background, changes to / and may be used by
# others by then: relative paths still mean what they meant, locks stay, and
# whatever has to run after the fork does.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
set -x

kill_daemon ()
{
  [ ! -s "$tmp/pid" ] || kill -KILL "$(cat "$tmp/pid")" 2> /dev/null
}
at_exit kill_daemon

make_regions 8M a.img b.img c.img
bounded "${nbdkit[@]}" -P "$tmp/pid" -U "$tmp/sock" "$DMIO_PLUGIN" \
  a.img b.img ./c.img log=none < /dev/null > message.log 2>&1
uri="nbd+unix:///?socket=$tmp/sock"
wait_for nbdinfo --can connect "$uri"
pid=$(cat pid)
[ "$(readlink "/proc/$pid/cwd")" = / ]

client "write 4096 65536 0x61" "write,fua 1048576 1048576 0x62" \
       "zero 8192 4096" "trim 1048576 4096" flush "cache 0 8388608" \
       "status 0 8388608" "read 4096 4096 0x61" "read 8192 4096 0"
# Many at once, on several connections.
bounded "${no_aslr[@]}" "$builddir/client-model" -t 2 "$uri"

# Another server is refused.
! bounded "${nbdkit[@]}" -f -U "$tmp/sock2" "$DMIO_PLUGIN" c.img log=none \
    < /dev/null > message2.log 2>&1 || die "served twice"
grep 'c\.img.*locked' message2.log

ask_to_end "$pid"
wait_for has_ended "$pid"
rm pid
same a.img b.img c.img

# Now it is free.
start_dmio c.img
stop_server
