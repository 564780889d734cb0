#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Files that are legs are changed while nobody serves them.  One of them: it is
# out of sync, and recovered from the others.  All of them: the mirror does not
# start, as nobody can know what is right.  And one that is changed while the
# server runs, but does not use it.  (R16, S4)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

# edit FILE...: as an editor does that knows nothing of mirrors.
edit ()
{
  local file
  for file; do
    printf x | dd of="$file" bs=1 seek=70000 conv=notrunc status=none
  done
}

# is_recovered FILE...: after a start.
is_recovered ()
{
  local file
  for file; do
    wait_for logged "${file//./\\.}.*(changed|modified)"
  done
  client "read 65536 65536 0x61"
  wait_in_sync
  client "read 65536 65536 0x61"
  same a.img b.img c.img
}

make_regions 4M a.img b.img c.img
start_mirror init=clean chunk=64K a.img b.img c.img
client "write 0 1048576 0x61" flush
stop_server

# Not changed, but read: fine.
cat a.img b.img > /dev/null
start_mirror a.img b.img c.img
[ "$(status .in_sync)" -eq 3 ]
not_logged 'changed|modified'
stop_server

edit b.img
start_mirror a.img b.img c.img
is_recovered b.img
stop_server

# The first one, which is also named first.
edit a.img
start_mirror a.img b.img c.img
is_recovered a.img
stop_server

# Truncated and made large again.
truncate -s 1M c.img
truncate -s 4M c.img
start_mirror a.img b.img c.img
is_recovered c.img
stop_server

# Replaced by a copy: who knows of what.
cp b.img copy
mv copy b.img
start_mirror a.img b.img c.img
is_recovered b.img
stop_server

# All but one, some time after a crash.
start_mirror a.img b.img c.img
client "write 0 1048576 0x61"
kill_server
edit b.img c.img
touch -d '1 hour' b.img c.img
start_mirror a.img b.img c.img
is_recovered b.img c.img
stop_server

# While it is served, but not used; also as a restored file, with its old time; and
# over a restart.
for how in plainly with-old-time before-a-restart; do
  start_mirror a.img b.img c.img
  wait_in_sync
  dmioctl fail b.img
  client "write 2097152 65536 0x62" flush
  cp -p b.img like.img
  edit b.img
  case $how in
    with-old-time) touch -r like.img b.img ;;
    before-a-restart)
      stop_server
      start_mirror a.img b.img c.img ;;
  esac
  ! cmp a.img b.img || die "nothing was changed"
  dmioctl add "$tmp/b.img"
  is_recovered b.img
  stop_server
done

# At once after it is not used any more, and a moment after it was written: the times
# of files are those of the kernel's last tick, some milliseconds ago.
start_mirror a.img b.img c.img
bounded "$python" - "$uri" "$control" "${no_aslr[@]}" "$DMIOCTL" <<'PYTHON'
import nbd, os, subprocess, sys

def dmioctl(*args):
    subprocess.run([*sys.argv[3:], "-s", sys.argv[2], *args], check=True)

h = nbd.NBD()
h.connect_uri(sys.argv[1])
b = os.open("b.img", os.O_RDWR)
for i in range(12):
    h.pwrite(b"b" * 65536, 2 << 20)
    dmioctl("fail", "b.img")
    os.pwrite(b, b"x", 70000)
    dmioctl("add", os.path.realpath("b.img"))
    dmioctl("wait", "--timeout", "120")
h.shutdown()
PYTHON
[ "$(grep -c 'b\.img.*changed by somebody else' "$server_log")" -eq 12 ]
same a.img b.img c.img
stop_server

# All.
cp a.img before.img
edit a.img b.img c.img
cp a.img after.img
refused_mirror 'changed|modified' a.img b.img c.img
refused_mirror 'changed|modified' degraded=yes a.img b.img c.img
same a.img b.img c.img after.img

# A new one that has got a part of what it lacks, before a restart.
gets_some ()
{
  [ "$(status '.legs[3].out_of_sync')" -lt 3000000 ]
}

rm ./*.dmlog
make_regions 4M a.img b.img c.img d.img
start_mirror init=clean chunk=64K resync-rate=512K a.img b.img c.img
client "write 0 4194304 0x61" flush
dmioctl add "$tmp/d.img"
wait_for gets_some
dmioctl fail d.img
edit d.img
stop_server
start_mirror a.img b.img c.img d.img
dmioctl add "$tmp/d.img"
is_recovered d.img
same a.img d.img
stop_server
