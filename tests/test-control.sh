#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The control socket: who can connect, how long it is there, what malformed
# messages do, who waits and goes away.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

end_daemon ()
{
  [ ! -e "$tmp/pid" ] || kill -KILL "$(cat "$tmp/pid")"
}

descriptors ()
{
  find "/proc/$server_pid/fd" -mindepth 1 | wc -l
}

# At most so many; at least so many.
has_descriptors ()
{
  [ "$(descriptors)" -le "$1" ]
}

has_more_descriptors ()
{
  [ "$(descriptors)" -ge "$1" ]
}

make_regions 4M a.img b.img

# Its mode does not depend on the umask.
for mask in 000 022 777; do
  rm -f ./*.dmlog
  launcher=(bash -c "umask $mask; exec \"\$@\"" bash)
  start_mirror a.img b.img log=none
  [ "$(stat -c %F:%a "$control")" = socket:600 ]
  launcher=()
  stop_server
  [ ! -e "$control" ]
done

# Nobody else can connect.
if is_root; then
  start_mirror a.img b.img log=none
  chmod 755 "$tmp"
  ! bounded setpriv --reuid=65534 --clear-groups "$DMIOCTL" -s "$control" \
    status 2> other.text || die "others can connect"
  grep 'Permission denied' other.text
  stop_server
fi

# It is left behind by a crash, and replaced; a living server's is not, nor is
# anything else, and what somebody else put in its place is not removed.
start_mirror a.img b.img log=none
kill_server
[ -S "$control" ]
start_mirror a.img b.img log=none
refused_mirror 'another server uses this socket' /dev/zero log=none \
               control="$control"
dmioctl status
rm "$control"
: > "$control"
stop_server
[ -f "$control" ]
refused_mirror 'not a socket' /dev/zero log=none control="$control"
rm "$control"
mkdir "$control"
refused_mirror 'not a socket' /dev/zero log=none control="$control"
rmdir "$control"

# A start that is refused leaves none.
refused_mirror 'No such file' missing.img log=none control="$control"
[ ! -e "$control" ]

# By a path from the directory in which nbdkit was started, with the server in the
# background in another one.
bounded "${nbdkit[@]}" -P "$tmp/pid" -U "$tmp/sock" "$DMIO_PLUGIN" a.img \
        log=none control=./c.sock < /dev/null
at_exit end_daemon
bounded "${no_aslr[@]}" "$DMIOCTL" -s c.sock status
ask_to_end "$(cat pid)"
wait_for has_ended "$(cat pid)"
rm pid
[ ! -e c.sock ]

# What is malformed does no harm.
start_mirror a.img b.img init=clean resync-rate=64K
dmioctl status
n=$(descriptors)
bounded "$python" "$srcdir/control.py" "$control"
wait_for has_descriptors "$n"
stop_server
same a.img b.img

# Many wait, for different times, and some go away.  One who asks for something
# else is answered meanwhile.
start_mirror a.img b.img
dmioctl fail 1
client "write 0 1048576 0x61"
n=$(descriptors)
waiting=()
for i in $(seq 30); do
  "${no_aslr[@]}" "$DMIOCTL" -s "$control" wait > "wait$i.text" 2>&1 &
  waiting+=($!)
done
! dmioctl wait --timeout 0.5 2> late.text ||
  die "accepted: dmioctl wait --timeout 0.5"
grep 'not in sync yet: 1 of 2 legs' late.text
! dmioctl wait --timeout 0 2> late.text ||
  die "accepted: dmioctl wait --timeout 0"
grep 'not in sync yet' late.text
status .degraded | grep true
wait_for has_more_descriptors $(( n + 30 ))
all=$(descriptors)
for i in $(seq 0 9); do
  kill "${waiting[i]}"
  wait "${waiting[i]}" || true
done
wait_for has_descriptors $(( all - 10 ))
dmioctl add 1
for i in $(seq 10 29); do
  wait "${waiting[i]}"
done
wait_for has_descriptors "$n"
stop_server

# The server ends although somebody waits, who is told.
start_mirror a.img b.img
dmioctl fail 0
dmioctl wait 2> ended.text &
pid=$!
wait_for has_more_descriptors $(( n + 1 ))
stop_server
! wait $pid || die "not in sync, but said so"
grep 'the server has ended the connection' ended.text

# It also ends while a leg is being opened that never answers.
start_mirror a.img b.img timeout=2
start_remote remote silent
dmioctl add "${remote_uri[remote]}" 2> ended.text &
pid=$!
sleep 0.3
dmioctl status
stop_server
! wait $pid || die "added what never answered"
