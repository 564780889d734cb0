#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A server that agrees to TLS and then makes no progress in its handshake holds
# up nothing for longer than the timeout: not the start, and when a connection
# is to be made again not the requests to the volume, and not the end.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires psktool gnutls-bin
set -x

psktool -u alice -p keys.psk
make_regions 4M a.img c.img
psk="nbds+unix://alice@/?socket=$tmp/c.sock&tls-psk-file=$tmp/keys.psk"

# start_stuck silent|slow
start_stuck ()
{
  rm -f stuck.log
  start_remote c "$python" "$srcdir/stuck-tls.py" "$tmp/c.pid" \
               "$tmp/stuck.log" "$1"
  remote_uri[c]=$psk
}

# start: with the right server, which is then replaced.
start ()
{
  start_remote c nbdkit --tls=require --tls-psk="$tmp/keys.psk" \
               file "$tmp/c.img"
  remote_uri[c]=$psk
  start_dmio timeout=1 "${remote_uri[c]}" a.img
  client "write 0 65536 0x41" flush
  kill_remote c
  start_stuck "$1"
  wait_for test -s stuck.log
}

for how in silent slow; do
  start_stuck $how
  refused 2 'c\.sock' 'within 1 second|TLS' a.img "$psk" timeout=1
  [ "$(wc -l < stuck.log)" -eq 1 ]
  kill_remote c

  # All is well without it, at once, also after the timeout.
  start $how
  for _ in 1 2; do
    begin=${EPOCHREALTIME/./}
    client "read 0 65536 0x41" "status 0 4194304" "cache 0 4194304"
    [ $(( (${EPOCHREALTIME/./} - begin) / 1000 )) -le "$(slack)" ]
    sleep 0.7
  done
  # It tries again, and gives up that too.
  wait_for eval '[ "$(wc -l < stuck.log)" -ge 2 ]'
  begin=${EPOCHREALTIME/./}
  client "write 0 4096 0x42 EIO" "read 0 4096 0x42"
  [ $(( (${EPOCHREALTIME/./} - begin) / 1000 )) -le "$(slack)" ]
  [ "$(lost c)" -eq 1 ]
  [ "$(back c)" -eq 0 ]
  stop_server_within 1
  kill_remote c
done

# The right one again.
start silent
sleep 1
kill_remote c
start_remote c nbdkit --tls=require --tls-psk="$tmp/keys.psk" file "$tmp/c.img"
remote_uri[c]=$psk
wait_for eval '[ "$(back c)" -eq 1 ]'
client "write 0 4096 0x43" "read 0 4096 0x43" flush
stop_server_within 1
holds c.img 0 4096 0x43
