#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A leg whose times say nothing (an NBD server) is another disk, or an old copy of
# it, after a restart, or when it returns: its blocks say so.  After a restart
# nobody knows which leg is right, so the start is refused and names both; when it
# returns it is copied anew.  And the user can say that a leg has nothing.  (S4)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_python_nbd
set -x

# restored FILE...: as they were when they were saved, also their times.
save ()
{
  rm -rf saved
  mkdir saved
  cp -p "$@" saved
}
restored ()
{
  local file
  for file; do
    cp -p "saved/$file" "$file.new"
    mv "$file.new" "$file"
  done
}

make_regions 4M a.img b.img c.img
start_remote b nbdkit file "$tmp/b.img"
start_remote c nbdkit file "$tmp/c.img"
legs=(a.img "${remote_uri[b]}" "${remote_uri[c]}")

# A host, or a server, is set back to an earlier state.
for what in "a.img a.img.dmlog" b.img c.img; do
  read -r -a files <<< "$what"
  rm -f a.img.dmlog
  kill_remote b c
  make_regions 4M a.img b.img c.img
  restart_remote b
  restart_remote c
  start_mirror init=clean "${legs[@]}"
  client "write 0 65536 0x11" flush
  stop_server
  save "${files[@]}"
  sleep 0.05
  start_mirror "${legs[@]}"
  client "write 0 65536 0x22" flush
  stop_server
  kill_remote b c
  restored "${files[@]}"
  restart_remote b
  restart_remote c
  refused_mirror "regions '.*(a\.img|b\.sock|c\.sock).*' and '.*[bc]\.sock.*differ in the block at offset 0,.*add --full" \
                 "${legs[@]}"
done

# What the message says is what helps; here it is c that is old.
start_mirror degraded=yes a.img "${remote_uri[b]}"
client "read 0 65536 0x22"
dmioctl add --full "${remote_uri[c]}"
wait_in_sync
client "read 0 65536 0x22"
stop_server
same a.img b.img c.img

# It returns blank while the mirror is served.
start_mirror "${legs[@]}"
client "write 1048576 1048576 0x33" flush
kill_remote b
wait_for has_state 1 failed
make_regions 4M b.img
restart_remote b
wait_in_sync
logged "region 1 \($(region b)\) is not what it was"
client "read 0 65536 0x22" "read 1048576 1048576 0x33"
stop_server
same a.img b.img c.img
kill_remote b c

# A disk with a leg and the copy of the log beside it is set back, where the samples are
# alike: the copy shows it.  (Files, which have no times if they have two parts.)
for what in a.img b.img; do
  make_regions 16M a.img b.img
  legs=()
  for file in a.img b.img; do
    legs+=("$file,sector=16384" "log=$file,count=16384")
  done
  start_mirror init=clean chunk=64K "${legs[@]}"
  client "write 0 4096 0x11" flush
  stop_server
  save $what
  start_mirror "${legs[@]}"
  client "write 8192 4096 0x22" flush
  stop_server
  restored $what
  start_mirror "${legs[@]}"
  logged "log copy $what,.* was set back"
  logged "region . \\($what,.*is out of sync \\(it was set back"
  client "read 8192 4096 0x22" "read 8192 4096 0x22" "read 8192 4096 0x22"
  wait_in_sync
  client "read 8192 4096 0x22" "read 0 4096 0x11"
  stop_server
  cmp -i 8388608 a.img b.img
  # And alone it is as good as any other.
  start_mirror "${legs[@]}"
  [ "$(status .in_sync)" -eq 2 ]
  stop_server
done
