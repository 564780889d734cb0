#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A server of a leg does a write long after the connection has ended over which it came:
# the mirror's server was killed, or a tunnel between them.  Newer data has been
# written meanwhile; the old does not come back.  (S5)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires_python_nbd
set -x

# A write that finds the file "slow" is done after $held seconds, whoever waits for it.
held=12
timeout=20
cat > slow.sh <<EOS
case "\$1" in
  thread_model) echo parallel ;;
  get_size) stat -L -c %s "$tmp/b.img" ;;
  can_write | can_flush | can_multi_conn) exit 0 ;;
  can_fua) echo native ;;
  can_zero | can_trim) exit 3 ;;
  pread) dd if="$tmp/b.img" iflag=skip_bytes,count_bytes count=\$3 skip=\$4 \\
            bs=1M status=none ;;
  pwrite)
    cat > "$tmp/data.\$\$"
    if mv "$tmp/slow" "$tmp/slow.taken" 2>/dev/null; then
      late=1
      sleep $held
    fi
    dd if="$tmp/data.\$\$" of="$tmp/b.img" oflag=seek_bytes seek=\$4 \\
       conv=notrunc bs=1M status=none
    [ -z "\$late" ] || touch "$tmp/landed"
    rm "$tmp/data.\$\$" ;;
  flush) exit 0 ;;
  *) exit 2 ;;
esac
EOS
chmod +x slow.sh

# One that passes on what it gets, and can be killed.
cat > tunnel.py <<'PYTHON'
import os, socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in a, b:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
while True:
    client = listener.accept()[0]
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[2])
    for pair in (client, server), (server, client):
        threading.Thread(target=pump, args=pair, daemon=True).start()
PYTHON
start_tunnel ()
{
  rm -f tunnel.sock
  "$python" tunnel.py tunnel.sock b.sock &
  tunnel_pid=$!
  servers+=("$tunnel_pid")
  wait_for test -S tunnel.sock
}
kill_tunnel ()
{
  kill -KILL "$tunnel_pid"
  forget_server "$tunnel_pid"
  wait "$tunnel_pid" || true
}

# begin_late_write [OFFSET]: of 0x21, at the beginning; nobody hears that it has been done.
begin_late_write ()
{
  rm -f landed slow.taken
  touch slow
  client "write ${1:-0} 4096 0x21" > late.log 2>&1 &
  late_pid=$!
  servers+=("$late_pid")
  wait_for test -e slow.taken
}

# end_late_write
end_late_write ()
{
  forget_server "$late_pid"
  wait "$late_pid" || true
}

# is_right: 0x22 was acknowledged and flushed before the old write was done.
is_right ()
{
  wait_for test -e landed
  client "read 0 4096 0x22" "read 0 4096 0x22" "read 0 4096 0x22"
  wait_in_sync
  client "read 0 4096 0x22" "read 4096 4096 0x11" "read 0 4096 0x22"
}

make_regions 8M a.img b.img c.img
start_remote b nbdkit sh "$tmp/slow.sh"
start_remote c nbdkit file "$tmp/c.img"

# The mirror's server is killed.  With a leg that cannot be late nobody waits; without
# one, who wants this chunk does.
for other in a.img "${remote_uri[c]}"; do
  rm -f log
  make_regions 8M a.img b.img c.img
  start_mirror log=log init=clean chunk=64K timeout=$timeout "$other" \
               "${remote_uri[b]}"
  client "write 0 8192 0x11" flush
  begin_late_write
  kill_server
  end_late_write
  start_mirror log=log timeout=$timeout "$other" "${remote_uri[b]}"
  client "write 1048576 4096 0x33" "read 1048576 4096 0x33"
  if [ "$other" = a.img ]; then
    logged 'region 1 .*writes from before the crash may still reach it'
    client "write 0 4096 0x22" flush
    [ ! -e landed ] || die "the write was not late"
  else
    client "write 0 4096 0x22" flush
    [ -e landed ] || die "the write did not wait"
  fi
  is_right
  stop_server
done
kill_remote c

# The tunnel to the leg is killed, and another is there at once.
rm -f log
make_regions 8M a.img b.img
start_tunnel
start_mirror log=log init=clean chunk=64K timeout=$timeout a.img \
             "nbd+unix:///?socket=$tmp/tunnel.sock"
client "write 0 8192 0x11" flush
begin_late_write
kill_tunnel
end_late_write
start_tunnel
wait_for has_state 1 recovering 'in sync'
client "write 0 4096 0x22" flush
[ ! -e landed ] || die "the write was not late"
is_right
stop_server
cmp a.img b.img
kill_tunnel
kill_remote b

#-----------------------------------------------------------------------
# The same with a copy of the log: what is late are bits of the log

sed "s|$tmp/b.img|$tmp/y.log|g" slow.sh > slow-log.sh
chmod +x slow-log.sh
truncate -s 1M y.log
start_remote y nbdkit sh "$tmp/slow-log.sh"

has_copies ()
{
  [ "$(status .log.copies)" -eq "$1" ]
}

# are_clean FILE...: these copies, now that the server has ended in order.
are_clean ()
{
  local file
  for file; do
    "$DMIOCTL" log "$file" > said
    grep '^0 bytes dirty' said
  done
}

# If there is another copy this one is not used before the write has been done; else the
# start waits for that.
for other in log ''; do
  rm -f log y.log
  truncate -s 1M y.log
  make_regions 8M a.img c.img
  logs=(${other:+"log=$other"} "log=${remote_uri[y]}")
  start_mirror "${logs[@]}" init=clean chunk=64K timeout=$timeout a.img c.img
  client "write 0 4096 0x11" flush
  begin_late_write 262144
  kill_server
  end_late_write
  start_mirror "${logs[@]}" timeout=$timeout a.img c.img
  if [ -n "$other" ]; then
    logged "log copy .*y\\.sock: writes from before the crash may still reach it"
    [ ! -e landed ] || die "the write was not late"
    has_copies 1
  else
    logged 'the start waits'
    [ -e landed ] || die "the start did not wait"
  fi
  client "write 65536 4096 0x22" flush
  wait_for has_copies ${#logs[@]}
  [ -e landed ] || die "the copy was used too early"
  wait_in_sync
  stop_server
  are_clean $other y.log
  same a.img c.img
done
kill_remote y
