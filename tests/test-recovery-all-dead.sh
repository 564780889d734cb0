#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# All legs are dead, or hang: requests fail within the timeout, and the server
# ends although requests are waiting.  When the legs are back, or one of them, the
# mirror works, and holds what was flushed.  (R15, W4)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

timeout=2

# fails_within SECONDS REQUEST...
fails_within ()
{
  local begin=${EPOCHREALTIME/./} msec
  client "${@:2}"
  msec=$(( (${EPOCHREALTIME/./} - begin) / 1000 ))
  [ $msec -le $(( $1 * 1000 + $(slack) )) ] || die "it took $msec ms"
}

make_regions 8M a.img b.img
start_remote a nbdkit -t 1 file "$tmp/a.img"
start_remote b nbdkit -t 1 file "$tmp/b.img"
start_mirror init=clean chunk=64K log=log timeout=$timeout \
             "${remote_uri[a]}" "${remote_uri[b]}"
client "write 0 65536 0x61" flush
wait_in_sync

# Killed.
kill_remote a b
fails_within $timeout "write 0 4096 0x62 EIO"
fails_within $timeout "read 0 4096 0x62 EIO"
fails_within $timeout "flush EIO"
dmioctl status
restart_remote a
restart_remote b
wait_in_sync
client "read 4096 4096 0x61" "write 0 4096 0x63" "read 0 4096 0x63"
client flush || client flush

# Only one of them is back, the one or the other: it has all that was flushed.  (W4)
for both in 'a b' 'b a'; do
  read -r first other <<< "$both"
  client "write 8192 4096 0x66"
  client flush || client flush
  kill_remote a b
  client "write 8192 4096 0x67 EIO"
  restart_remote "$first"
  wait_for client "read 4096 4096 0x61"
  client "read 8192 4096 0x66" "write 12288 4096 0x68"
  client flush || client flush
  [ "$(status .in_sync)" -eq 1 ]
  restart_remote "$other"
  wait_in_sync 60
done

# They hang.
stop_remote a b
fails_within $timeout "write 0 4096 0x64 EIO"
fails_within $timeout "read 0 4096 0x64 EIO"
continue_remote a b
wait_in_sync
client "write 0 4096 0x65"
client flush || client flush
wait_in_sync

# The server ends with requests waiting; they and the clients come to an end
# before.  (A client that is killed instead may be the death of some nbdkits.)
client "zero 0 8388608" flush
start_crash_load -k -l -e -t 60
stop_remote a b
sleep 0.5
ask_to_end "$server_pid"
wait_for has_ended "$server_pid"
end_crash_load
forget_server "$server_pid"
wait "$server_pid"
continue_remote a b

start_mirror log=log timeout=$timeout "${remote_uri[a]}" "${remote_uri[b]}"
wait_in_sync
stop_server
kill_remote a b
same a.img b.img
