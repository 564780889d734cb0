#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Regions were used without each other, each with its copy of the log, by the user's
# word.  If both have been written since, which is right is for the user to decide:
# a start with both is refused, and a region that turns up while the other is served
# is failed, until 'dmioctl add --overwrite'.  If one has not been written, it only
# lacks what the other has.  (S2)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_python_nbd
set -x

# Each file has a directory of its own, which can be away.
show ()
{
  local each
  for each; do
    [ ! -d "away.$each" ] || mv "away.$each" "$each"
  done
}

hide ()
{
  local each
  for each; do
    [ ! -d "$each" ] || mv "$each" "away.$each"
  done
}

# new DIRECTORY...: a mirror of a file in each, alike and at rest.
new ()
{
  local each
  show a b c
  rm -rf a b c x y
  mkdir a b c x y
  legs=()
  for each; do
    make_regions 4M "$each/$each.img"
    legs+=("$each/$each.img")
  done
  files=("${legs[@]}")
  start_mirror init=clean chunk=64K "${logs[@]}" "${legs[@]}"
  client "write 0 1048576 0x61" flush
  stop_server
}

# alone DIRECTORY [REQUEST...]: is served without the others, and these requests are done.
alone ()
{
  hide a b c
  show "$1"
  start_mirror degraded=yes "${logs[@]}" "${legs[@]}"
  [ $# -eq 1 ] || client "${@:2}" flush
  stop_server
  show a b c
}

# reason LEG: why it is not in sync.
reason ()
{
  status ".legs[] | select(.number == $1) | .reason"
}

sums ()
{
  cat "$@" | sha256sum
}

has_copies ()
{
  [ "$(status '"\(.log.copies) of \(.log.all)"')" = "$1" ]
}

# all_well: after a start without the user's word, all is in sync and stays so.
all_well ()
{
  wait_in_sync
  wait_for has_copies "${#legs[@]} of ${#legs[@]}"
  stop_server
  same "${files[@]}"
  start_mirror "${logs[@]}" "${legs[@]}"
  [ "$(status .in_sync)" -eq "${#legs[@]}" ]
  stop_server
}

#-----------------------------------------------------------------------
# Both were written

logs=()
for which in "a b" "a b c"; do
  for turns_up in "is back" "was not given"; do
    read -r -a directories <<< "$which"
    new "${directories[@]}"
    alone a "write 1048576 4096 0xaa"
    alone b "write 2097152 4096 0xbb"
    refused_mirror 'b\.img\.dmlog.*a\.img\.dmlog.*split brain' "${legs[@]}"

    # a is served; b turns up meanwhile, or is added.
    before=$(sums b/b.img b/b.img.dmlog)
    if [ "$turns_up" = "is back" ]; then
      hide b
      start_mirror "${legs[@]}"
      show b
      wait_for has_state 1 failed
      [ "$(reason 1)" = "split brain" ]
      logged 'region 1 \(b/b\.img\): log copy .*b\.img\.dmlog .*split brain.*--overwrite'
    else
      start_mirror a/a.img ${directories[2]:+c/c.img}
    fi
    ! dmioctl add "$tmp/b/b.img" 2> error || die "a split brain was ended"
    grep 'split brain.*--overwrite' error
    ! dmioctl add --full "$tmp/b/b.img" 2> error || die "a split brain was ended"
    grep 'split brain.*--overwrite' error
    client "write 3145728 4096 0xac" flush
    [ "$(sums b/b.img b/b.img.dmlog)" = "$before" ]
    stop_server
    refused_mirror 'split brain' "${legs[@]}"

    # The user gives up what b has.  Killed at once, that still counts.
    hide b
    start_mirror "${legs[@]}"
    show b
    dmioctl add --overwrite "$tmp/b/b.img"
    logged 'b\.img\.dmlog is given up'
    kill_server
    start_mirror "${legs[@]}"
    client "read 2097152 4096 0x00" "read 1048576 4096 0xaa" \
      "read 3145728 4096 0xac"
    all_well
    holds b/b.img 2097152 4096 0
    holds b/b.img 1048576 4096 0xaa
  done
done

# b is right: as the refusal says, the other copy is moved away and its region left out.
new a b
alone a "write 1048576 4096 0xaa"
alone b "write 2097152 4096 0xbb"
mv a/a.img.dmlog other
start_mirror b/b.img
dmioctl add --overwrite "$tmp/a/a.img"
wait_in_sync
stop_server
holds a/a.img 2097152 4096 0xbb
start_mirror "${legs[@]}"
all_well

# The copies are not beside regions, which are files and show that they were written
# without the one copy: it is not believed.
logs=(log=x/log log=y/log)
new a b
start_mirror degraded=yes log=y/log "${legs[@]}"
client "write 1048576 4096 0xaa" flush
stop_server
refused_mirror 'changed while the mirror was not served' degraded=yes log=x/log \
               "${legs[@]}"
start_mirror "${logs[@]}" "${legs[@]}"
client "read 1048576 4096 0xaa"
all_well

# Servers: the region and the copy of the log that were used elsewhere turn up, at
# once or one after the other.
logs=()
new a b
rm b/b.img.dmlog a/a.img.dmlog
start_remote b nbdkit file "$tmp/b/b.img"
truncate -s 1M y/log
start_remote y nbdkit file "$tmp/y/log"
legs=(a/a.img "${remote_uri[b]}")
logs=(log=x/log "log=${remote_uri[y]}")
start_mirror init=clean chunk=64K "${logs[@]}" "${legs[@]}"
client "write 0 1048576 0x61" flush
stop_server
kill_remote b y
start_mirror degraded=yes "${logs[@]}" "${legs[@]}"
client "write 1048576 4096 0xaa" flush
stop_server
restart_remote b
restart_remote y
hide a
start_mirror degraded=yes "${logs[1]}" "${legs[@]}"
client "write 2097152 4096 0xbb" flush
stop_server
show a
kill_remote b y
start_mirror degraded=yes "${logs[@]}" "${legs[@]}"
before=$(sums b/b.img y/log)
restart_remote b
sleep 4                         # the copy of the log comes later
restart_remote y
wait_for eval '[ "$(reason 1)" = "split brain" ]'
[ "$(sums b/b.img y/log)" = "$before" ]
client "write 3145728 4096 0xac" flush
dmioctl add --overwrite "${remote_uri[b]}"
all_well
holds b/b.img 2097152 4096 0
kill_remote b y

#-----------------------------------------------------------------------
# One was not

# turn DIRECTORY WHO: it is used alone, and written if it is WHO.
turn ()
{
  if [ "$1" = "$2" ]; then
    alone "$1" "write 1048576 4096 0xcc"
  else
    alone "$1"
  fi
}

for who in none a b; do
  for order in "a b" "b a"; do
    logs=()
    new a b
    for each in $order; do
      turn "$each" "$who"
    done
    start_mirror "${legs[@]}"
    [ $who = none ] || client "read 1048576 4096 0xcc"
    client "read 0 1048576 0x61"
    if [ $who = none ]; then expected=0; else expected=65536; fi
    [ "$(sed -n 's/.*being recovered: \([0-9]*\) bytes.*/\1/p' "$server_log")" \
      = $expected ]
    all_well

    # The same with copies that have no region of their own: all are there, and after a
    # write the other copy would not be believed.
    [ $who = none ] || [ "${order#* }" = $who ] || continue
    logs=(log=x/log log=y/log)
    new a b
    for each in $order; do
      only=log=x/log
      [ "$each" = a ] || only=log=y/log
      start_mirror degraded=yes $only "${legs[@]}"
      [ "$(status .in_sync)" -eq 2 ]
      [ "$each" != "$who" ] || client "write 1048576 4096 0xcc" flush
      stop_server
    done
    start_mirror "${logs[@]}" "${legs[@]}"
    [ $who = none ] || client "read 1048576 4096 0xcc"
    [ "$(status .in_sync)" -eq 2 ]
    not_logged 'is being recovered'
    all_well
  done
done

# It turns up while the other is served: only what it lacks is copied to it.
logs=()
new a b
alone a "write 1048576 4096 0xaa"
alone b
hide b
start_mirror "${legs[@]}"
show b
wait_in_sync
logged 'region 1 .* is being recovered: 65536 bytes'
all_well

# A recovery writes to a leg, too: a region that was copied to is not what it was.
new a b c
alone a "write 1048576 4096 0xaa"
hide a
start_mirror degraded=yes "${legs[@]}"
dmioctl fail 2
dmioctl add --full 2
wait_for has_state 2 "in sync"
stop_server
show a
refused_mirror 'split brain' "${legs[@]}"
