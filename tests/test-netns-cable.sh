#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One of three remotes is on another host, the cable to which is pulled under
# load, at the far end or at the near end.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_namespaces
set -x

new_namespace near
new_namespace far
cable near far

# start POSITION: c is on the other host.
start ()
{
  local name
  for name in a b c; do
    "$python" "$srcdir/load.py" make $name.img $(( 4 << 20 ))
  done
  start_remote a nbdkit file "$tmp/a.img"
  start_remote b nbdkit file "$tmp/b.img"
  inside far
  remote_launcher=("${inside[@]}")
  start_tcp_remote 10.0.0.2 c nbdkit -t 1 file "$tmp/c.img"
  remote_launcher=()
  inside near
  launcher=("${inside[@]}")
  start_dmio_on_three "$1"
}

# Changes.
for end in far near; do
  start 0
  start_load 3 errors=EIO latency=3 regions=a.img,b.img
  in_namespace $end ip link set cable down
  sleep 1.7
  in_namespace $end ip link set cable up
  end_load
  c_stays_away
  cp c.img before.img
  client "write 0 4194304 0x44 EIO" "read 0 4194304 0x44"
  same before.img c.img
  # The same command starts again.
  stop_server_within 3
  start_dmio_on_three 0
  client "write 0 4194304 0x45" "read 0 4194304 0x45" flush
  stop_server_within 3
  same a.img b.img c.img
  kill_remote a b c
done

# Reads.
start 1
start_load 3 kind=read latency=3
in_namespace far ip link set cable down
sleep 1.7
in_namespace far ip link set cable up
end_load
c_comes_back
stop_server_within 3
kill_remote c

# The cable stays where it was put, and the server is told to end.
start 2
in_namespace near ip link set cable down
client "write 0 4096 0x46 EIO" "read 0 4096 0x46"
stop_server_within 3
refused 1 'nbd://10\.0\.0\.2' . "${remote_uri[a]}" "${remote_uri[c]}" timeout=1
