#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Remote servers lose power under load: nbdkit's cache filter, killed, loses
# what was not flushed (it must not answer for block status: it would call holes
# what it has not yet written); they come back a moment later.  The mirror goes
# on and makes them alike again by itself.
#
# As long as one remote stays that was in sync, nothing that was acknowledged
# gets lost, and no request fails.  When all are killed, what was flushed is
# there, and a flush that cannot keep its promise fails.  So it is when the
# server is killed together with some of them.
#
# DMIO_ROUNDS: how often, in all.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

rounds=${DMIO_ROUNDS:-$(( ${#DMIO_PRELOAD} > 0 ? 4 : 14 ))}
RANDOM=${DMIO_SEED:=$$}
echo "DMIO_SEED=$DMIO_SEED"

# The names of remotes, in the order of the legs.
names=()

# choose_victims: sets victims, names of some remotes, seldom all; and options
# to -l and -e if nobody else is in sync.
choose_victims ()
{
  local name number all_victims=yes
  victims=()
  until [ ${#victims[@]} -gt 0 ]; do
    for name in "${names[@]}"; do
      [ "$(random_below 5)" -ge 2 ] || victims+=("$name")
    done
  done
  for number in $(status '.legs[] | select(.state == "in sync") | .number'); do
    [[ " ${victims[*]} " == *" ${names[$number]} "* ]] || all_victims=no
  done
  options=()
  [ $all_victims = no ] || options=(-l -e)
}

same_remotes ()
{
  local name
  for name in "${names[@]}"; do
    nbdcopy "${remote_uri[$name]}" - > "$name.copy"
  done
  same ./*.copy
  rm ./*.copy
}

# The remotes lose power, and are back a moment later; the load goes on.
remotes_only ()
{
  choose_victims
  start_crash_load -t 3 "${options[@]}"
  nap 800
  kill_remote "${victims[@]}"
  nap 900
  restart_victims
  end_crash_load
}

# The server loses it, too: it is started again when they are back.
server_as_well ()
{
  choose_victims
  options=(-l)
  start_crash_load -k -t 60
  nap 800
  kill_server
  kill_remote "${victims[@]}"
  end_crash_load
  restart_victims
  start_mirror log=log timeout=5 "${uris[@]}"
}

restart_victims ()
{
  local name
  for name in "${victims[@]}"; do
    restart_remote "$name"
  done
}

power_cut ()
{
  local victims options
  if [ "$(random_below 4)" -eq 0 ]; then
    server_as_well
  else
    remotes_only
  fi
  if [ ${#options[@]} -gt 0 ]; then
    wait_in_sync
    check_volume -l
  fi
  if [ "$(random_below 3)" -gt 0 ]; then
    check_volume
    wait_in_sync
    check_volume
    same_remotes
  fi
}

# power_cuts NUMBER NAME...
power_cuts ()
{
  local name uris=() n
  names=("${@:2}")
  rm -f blocks log
  for name in "${names[@]}"; do
    make_regions 32M "$name.img"
    start_remote "$name" nbdkit -t 1 --filter=noextents --filter=cache \
                 file "$tmp/$name.img" cache=writeback
    uris+=("${remote_uri[$name]}")
  done
  start_mirror init=clean chunk=64K log=log timeout=5 "${uris[@]}"
  for n in $(seq "$1"); do
    power_cut
  done
  wait_in_sync
  stop_server
  kill_remote "${names[@]}"
  same "${names[@]/%/.img}"

  # The log is right, too.
  for name in "${names[@]}"; do
    restart_remote "$name"
  done
  start_mirror log=log timeout=5 "${uris[@]}"
  [ "$(status .in_sync)" -eq ${#names[@]} ]
  check_volume -l
  stop_server
  kill_remote "${names[@]}"
}

power_cuts $(( rounds / 2 )) a b
power_cuts $(( rounds - rounds / 2 )) a b c
