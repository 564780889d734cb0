#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The server of a leg is killed again and again with reads, writes, flushes or
# block status commands in flight.  No client hears of it, each request ends
# once, and the leg is in sync again when its server is back.
#
# DMIO_ROUNDS: how often for each kind (3).

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"

rounds=${DMIO_ROUNDS:-3}
kinds=(read write flush status)

# ask WORD ANSWER: of the client in_flight.py.
ask ()
{
  local answer
  echo "$1" >&"${client[1]}"
  read -r -t 90 answer <&"${client[0]}" || die "the client has ended"
  [ "$answer" = "$2" ] || die "the client says $answer"
}

# In half of the rounds the server does nothing any more before it gets the
# requests, so that all of them are in flight; in the others it is killed at
# some time while it works on them.
kill_while ()
{
  local stopped=$(( $2 % 2 ))
  [ $stopped -eq 0 ] || stop_remote c
  ask "$1" sent
  [ $stopped -eq 1 ] || nap 5
  kill_remote c
  ask end ended
}

# Connected again as often as it was lost, which has been LOST times: only then
# is "in sync" said of the new server.
is_back ()
{
  [ "$(lost c)" -ge "$1" ] && [ "$(back c)" -eq "$(lost c)" ]
}

back_in_sync ()
{
  wait_for is_back "$1"
  wait_in_sync 60
}

make_regions 4M a.img c.img
start_remote c nbdkit file "$tmp/c.img"
start_mirror init=clean log=log read=first "${remote_uri[c]}" a.img
coproc client { exec "$python" "$srcdir/in_flight.py" "$uri"; }
client_pid=$!
servers+=("$client_pid")
read -r -t 60 _ <&"${client[0]}"

for kind in "${kinds[@]}"; do
  echo "$kind, $rounds rounds"
  before=$(lost c)
  for (( round = 1; round <= rounds; round++ )); do
    kill_while "$kind" $round
    restart_remote c
    back_in_sync $(( before + round ))
  done
  [ "$(lost c)" -ge $(( before + rounds )) ]
done

exec {client[1]}>&-
wait_for has_ended "$client_pid"
forget_server "$client_pid"
stop_server
kill_remote c
same a.img c.img
