#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# In the background nbdkit works in / : a relative path of a socket still
# means what it meant, also when the connection is made again.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 4M a.img c.img
mkdir sub
start_remote c nbdkit file "$tmp/c.img"
ln -s ../c.sock sub/link.sock
start ()
{
  bounded "${nbdkit[@]}" -P "$tmp/daemon.pid" -U "$tmp/daemon.sock" \
    "$DMIO_PLUGIN" log=none timeout=2 "$@" < /dev/null > message.log 2>&1
  uri="nbd+unix:///?socket=$tmp/daemon.sock"
  wait_for nbdinfo --can connect "$uri"
  pid=$(cat daemon.pid)
  [ "$(readlink "/proc/$pid/cwd")" = / ]
}
stop ()
{
  ask_to_end "$pid"
  wait_for has_ended "$pid"
  rm -f daemon.pid daemon.sock
  no_sanitizer_findings
}

for socket in c.sock ./sub/link.sock sub/../c.sock; do
  start "nbd+unix:///?socket=$socket"
  client "write 0 65536 0x31" flush "read 0 65536 0x31"
  kill_remote c
  client "read 0 65536 0 EIO" "read 0 65536 0 EIO"
  restart_remote c
  wait_for client "read 0 65536 0x31"
  client "write 0 4096 0x32" "read 0 4096 0x32" flush
  stop
done

# Many requests, with threads that began after the fork.
start a.img "nbd+unix:///?socket=c.sock"
bounded "${no_aslr[@]}" "$builddir/client-model" -t 2 "$uri"
stop
same a.img c.img
