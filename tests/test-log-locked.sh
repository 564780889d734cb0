#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One writer: a second server is refused for the regions and for the copies of
# the log, and harms neither; so is qemu.  A reader of the log is let in, and
# keeps nobody out.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
requires qemu-io qemu-utils
set -x

make_regions 4M a.img b.img c.img
start_mirror a.img b.img init=clean
client "write 0 4096 0x61" flush
first=$(status .uuid)
first_control=$control

refused_mirror 'a\.img.*locked.*another server' a.img b.img
refused_mirror 'a\.img.*locked.*another server' a.img b.img degraded=yes
refused_mirror 'b\.img.*locked.*another server' c.img b.img init=clean
refused_mirror 'b\.img.*locked.*another server' b.img log=d.dmlog init=clean
refused_mirror 'a\.img\.dmlog.*locked.*another server' c.img log=a.img.dmlog
refused_mirror 'a\.img\.dmlog.*locked.*another server' c.img init=clean \
               log=d.dmlog log=a.img.dmlog
refused_mirror 'control=.*another server uses this socket' c.img init=clean \
               log=d.dmlog control="$control"
[ ! -e c.img.dmlog ]
[ ! -e d.dmlog ]
! bounded qemu-io -f raw -c 'write 0 512' a.img.dmlog 2> qemu.log ||
  die "accepted: qemu-io -f raw -c 'write 0 512' a.img.dmlog"
grep -i lock qemu.log
dmioctl log a.img.dmlog > log.text
grep '^in use: a server.*has this copy open.*may be changing$' log.text
grep -x "log: $first, version 1" log.text

# The first one does not notice.
[ "$(status .uuid)" = "$first" ]
client "read 0 4096 0x61" "write 4096 4096 0x62" flush
[ "$(status '"\(.in_sync) \(.log.copies)"')" = "2 2" ]

# Nor can a leg of one be added to another.
control=$tmp/other.sock
start_mirror c.img init=clean
! dmioctl add a.img 2> add.text ||
  die "accepted: dmioctl add a.img"
grep -E "a\.img.*locked.*another server" add.text
! dmioctl add missing.img 2> add.text ||
  die "accepted: dmioctl add missing.img"
grep -E "missing\.img.*No such file" add.text
make_regions 2M small.img
! dmioctl add small.img 2> add.text ||
  die "accepted: dmioctl add small.img"
grep -E "small\.img.*less than the volume" add.text
! dmioctl add c.img 2> add.text ||
  die "accepted: dmioctl add c.img"
grep 'is a leg already' add.text
[ "$(status '.legs | length')" -eq 1 ]
stop_server

server_pid=${servers[0]}
control=$first_control
[ "$(status .in_sync)" -eq 2 ]
stop_server
same a.img b.img

# What is half written when it is looked at is looked at again.
# change BLOCK: a process that has the log open writes that block again after a
# while, which was torn before.
change ()
{
  exec "$python" - torn.dmlog a.img.dmlog "$1" <<'PYTHON'
import fcntl, struct, sys, time
torn, good, block = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(good, "rb") as f:
    f.seek(block * 4096)
    data = f.read(4096)
with open(torn, "r+b", buffering=0) as f:
    fcntl.fcntl(f, fcntl.F_OFD_SETLK,
                struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    open("locked", "w").close()
    time.sleep(0.4)
    f.seek(block * 4096)
    f.write(data)
    time.sleep(5)
PYTHON
}

end_change ()
{
  server_pid=$!
  kill_server
}

for block in 0 2 3; do
  cp a.img.dmlog torn.dmlog
  dd if=/dev/urandom of=torn.dmlog bs=512 seek=$(( block * 8 + 4 )) count=4 \
     conv=notrunc status=none
  ! dmioctl log torn.dmlog > log.text 2> error.text ||
    die "accepted: a torn block $block that nobody writes"
  ! grep '^in use: ' log.text || die "nobody uses it"
  rm -f locked
  change $block &
  servers+=("$!")
  wait_for test -e locked
  dmioctl log torn.dmlog > log.text
  grep '^in use: ' log.text
  end_change
done

# What stays wrong is wrong.
dd if=/dev/urandom of=torn.dmlog bs=512 seek=28 count=4 conv=notrunc status=none
rm -f locked
change 2 &
servers+=("$!")
wait_for test -e locked
! dmioctl log torn.dmlog > log.text 2> error.text ||
  die "accepted: a torn block that stays so"
grep '^in use: ' log.text
grep -E '1 things in it are wrong' error.text
end_change

# A crash leaves no lock behind.
start_mirror a.img b.img
kill_server
start_mirror a.img b.img
wait_in_sync
stop_server
