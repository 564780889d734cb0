#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A name server that never answers cannot hold up anything for longer than the
# timeout: not the start, not the requests when a connection was lost, not the
# end of the server.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_namespaces
requires unshare util-linux
set -x

# A host of our own, with its own configuration.  The name server is a socket that
# nobody reads from.
new_namespace host
inside host
"${inside[@]}" setpriv --pdeathsig KILL "$python" -c '
import signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.53", 53))
t = socket.socket()
t.bind(("127.0.0.53", 53))
t.listen()
open("ready", "w").close()
signal.pause()' &
remote_pid[resolver]=$!
wait_for test -e ready
echo 'nameserver 127.0.0.53' > resolv.conf
echo 'options timeout:20 attempts:5' >> resolv.conf
echo 'hosts: files dns' > nsswitch.conf
echo '127.0.0.1 localhost known' > hosts
# shellcheck disable=SC2016
launcher=("${inside[@]}" unshare -m sh -c '
  for file in resolv.conf nsswitch.conf hosts; do
    mount --bind "$0/$file" "/etc/$file" || exit
  done
  exec "$@"' "$tmp")

# The resolver itself would hold up everything for 20 seconds and more, so that a
# loaded machine can have much of that for starting programs.
slack ()
{
  echo 10000
}

make_regions 4M a.img c.img
refused 2 'nbd://unknown' 'resol|answer' a.img nbd://unknown timeout=2
refused 1 'nbd://unknown' 'resol|answer' a.img nbd://unknown:1/x timeout=1

# A name that is known at first.
remote_launcher=("${inside[@]}")
start_tcp_remote 127.0.0.1 c nbdkit file "$tmp/c.img"
remote_launcher=()
remote_uri[c]=nbd://known:$(cat c.port)
start_dmio timeout=1 a.img "${remote_uri[c]}"
client "write 0 4096 0x41" flush
# In place: the file is mounted.
echo '127.0.0.1 localhost' > hosts
kill_remote c
wait_for eval '[ "$(lost c)" -eq 1 ]'
sleep 1
before=${EPOCHREALTIME/./}
client "read 0 4096 0x41" "status 0 4194304" "write 0 4096 0x42 EIO" \
       "read 0 4096 0x42"
msec=$(( (${EPOCHREALTIME/./} - before) / 1000 ))
[ $msec -le $(( 1000 + $(slack) )) ] || die "the requests took $msec ms"
stop_server_within 3

# It is known again after a while.
echo '127.0.0.1 localhost known' > hosts
restart_remote c
start_dmio timeout=1 a.img "${remote_uri[c]}"
client "write 0 4096 0x43" flush
echo '127.0.0.1 localhost' > hosts
kill_remote c
wait_for eval '[ "$(lost c)" -eq 1 ]'
sleep 1.5
restart_remote c
echo '127.0.0.1 localhost known' > hosts
wait_for eval '[ "$(back c)" -eq 1 ]'
client "write 0 4096 0x44" "read 0 4096 0x44" flush
stop_server_within 3
holds c.img 0 4096 0x44
