#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A server that may not do all that the owner of the files may.  A region that it
# cannot write counts as missing until it can.  One that it may write, but does not
# own: what the server finds out about it leaves no trace that would be taken for
# somebody's change.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
requires setpriv util-linux
is_root || skip "only root can have a server that does not own its files"
set -x

chmod 777 "$tmp"
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
launcher=("${nobody[@]}")

# For their copies of the log, too, which the server makes.
make_regions 4M a.img b.img
chmod 666 a.img b.img
start_mirror init=clean chunk=64K a.img b.img
client "write 0 1048576 0x61" flush
stop_server

# A client asks, but writes nothing.
start_mirror a.img b.img
nbdinfo --can zero "$uri"
nbdinfo --can fast-zero "$uri"
kill_server
start_mirror a.img b.img
[ "$(status .in_sync)" -eq 2 ]
not_logged 'changed'
stop_server

# One cannot be written: the user's word is needed, and it gets what it lacks when
# it can be.
chmod 444 b.img
refused_mirror 'b\.img.*cannot be written; make it' a.img b.img
refused_mirror 'b\.img.*degraded=yes' a.img b.img
! grep log=none refused.log || die "log=none would be no remedy"
start_mirror degraded=yes a.img b.img
client "write 1048576 65536 0x62" flush "read 1048576 65536 0x62"
[ "$(status .in_sync)" -eq 1 ]
chmod 666 b.img
wait_in_sync
same a.img b.img
stop_server
