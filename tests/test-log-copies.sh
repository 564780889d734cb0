#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Copies of the log: missing, new, damaged, unreachable, of another mirror, and in
# places other than files.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

copies ()
{
  status '"\(.log.copies) of \(.log.all)"'
}

make_regions 4M a.img b.img c.img d.img
start_mirror a.img b.img init=clean
client "write 0 4096 0x61" flush
stop_server
start_mirror a.img b.img
dmioctl fail 1
client "write 0 4096 0x62" flush
stop_server
cp a.img.dmlog degraded.dmlog

# One is deleted: it is made again from the other.
rm a.img.dmlog
start_mirror a.img b.img
logged 'a\.img\.dmlog.*did not exist.*made from the other'
[ "$(copies)" = "2 of 2" ]
[ "$(state 1)" = failed ]
stop_server
rm b.img.dmlog
start_mirror b.img a.img
[ "$(state 1)" = failed ]
client "read 0 4096 0x62" "write 0 4096 0x62"

# After a crash the regions do not show that it knew no more than the other, so
# that needs the user's word.
kill_server
rm b.img.dmlog
refused_mirror "copy of the log that was in use is missing.*: $tmp/b\.img\.dmlog; \
.*degraded=yes" a.img b.img
[ ! -e b.img.dmlog ]
start_mirror a.img b.img degraded=yes
[ "$(copies)" = "2 of 2" ]
[ "$(state 1)" = failed ]
stop_server

# Both are: nothing is known any more.
mkdir away
mv ./*.dmlog away
refused_mirror 'no log yet.*init=' a.img b.img
mv away/*.dmlog .

# One is damaged: zero, random, half of it, all but nothing.
for damage in 'if=/dev/zero count=10000' 'if=/dev/urandom count=16' \
              'if=/dev/urandom count=1 seek=1' 'if=/dev/urandom count=10000'; do
  # shellcheck disable=SC2086
  dd bs=512 conv=notrunc status=none of=b.img.dmlog $damage
  start_mirror a.img b.img
  [ "$(copies)" = "2 of 2" ]
  [ "$(state 1)" = failed ]
  stop_server
done
# Both: refused, with the way out.
for file in a.img.dmlog b.img.dmlog; do
  cp $file away
  dd if=/dev/urandom of=$file bs=4096 count=3 conv=notrunc status=none
done
refused_mirror 'log copy .*(superblock|valid).*remove' a.img b.img
refused_mirror 'log copy .*(superblock|valid).*remove' a.img b.img init=sync
mv away/*.dmlog .
start_mirror a.img b.img
stop_server

# Of another mirror.
start_mirror c.img d.img init=clean
stop_server
cp c.img.dmlog away
cp a.img.dmlog c.img.dmlog
refused_mirror 'log' c.img d.img
cp away/c.img.dmlog .
refused_mirror 'log' a.img b.img log=a.img.dmlog log=c.img.dmlog
start_mirror c.img d.img
stop_server

# Each has seen what the other has not.
mv b.img.dmlog other.dmlog
cp -p a.img a.saved
start_mirror a.img b.img log=a.img.dmlog degraded=yes
client "write 65536 4096 0x63" flush
stop_server
mv a.img.dmlog one.dmlog
refused_mirror 'a\.img: changed while the mirror was not served' a.img b.img \
               log=other.dmlog degraded=yes
cat a.saved > a.img
touch -r a.saved a.img
start_mirror a.img b.img log=other.dmlog degraded=yes
client "write 65536 4096 0x64" flush
stop_server
refused_mirror 'log' a.img b.img log=one.dmlog log=other.dmlog
mv other.dmlog b.img.dmlog
start_mirror a.img b.img
dmioctl add 1
wait_in_sync
stop_server

# Copies elsewhere: the others say where one is that is missing, also when it has
# been moved meanwhile, or was made before they could say that.
mkdir logs
start_mirror c.img d.img log=logs/1,,one.dmlog log=logs/2.dmlog \
             log=logs/3.dmlog,sector=8 init=clean
[ "$(status '.log.places[2].place')" = "$tmp/logs/3.dmlog,sector=8" ]
stop_server
mv logs/2.dmlog logs/two.dmlog
truncate -s $(( (3 + 1 + 64 * 2) * 4096 )) logs/1,one.dmlog
start_mirror c.img d.img log=logs/1,,one.dmlog log=logs/two.dmlog \
             log=logs/3.dmlog,sector=8
[ "$(copies)" = "3 of 3" ]
client "write 0 4096 0x71" flush
kill_server
refused_mirror "is missing or not valid: $tmp/logs/two\.dmlog; " c.img d.img \
               log=logs/1,,one.dmlog log=logs/3.dmlog,sector=8
refused_mirror "is missing or not valid: $tmp/logs/1,,one\.dmlog, \
$tmp/logs/3\.dmlog,sector=8; " c.img d.img log=logs/two.dmlog
refused_mirror 'not valid: copy number 1, copy number 2; ' c.img d.img \
               log=logs/1,,one.dmlog
start_mirror c.img d.img log=logs/1,,one.dmlog log=logs/two.dmlog \
             log=logs/3.dmlog,sector=8
wait_in_sync
stop_server

# On an NBD server, which may be away with the user's word only.
truncate -s 16M remote.img
start_remote remote nbdkit file "$tmp/remote.img"
start_mirror a.img b.img timeout=2 log=a.img.dmlog \
             log="${remote_uri[remote]}" degraded=yes
[ "$(copies)" = "2 of 2" ]
client "write 131072 4096 0x65" flush
stop_server
kill_remote remote
refused_mirror 'log copy .*may be newer.*degraded=yes' a.img b.img timeout=2 \
               log=a.img.dmlog log="${remote_uri[remote]}"
refused_mirror 'no copy of the log can be reached' a.img b.img timeout=2 \
               log="${remote_uri[remote]}" degraded=yes
start_mirror a.img b.img timeout=2 log=a.img.dmlog \
             log="${remote_uri[remote]}" degraded=yes
client "read 131072 4096 0x65"
stop_server
restart_remote remote
start_mirror a.img b.img timeout=2 log=a.img.dmlog log="${remote_uri[remote]}"
[ "$(copies)" = "2 of 2" ]
stop_server

# No region is a file: the log needs a place.
start_remote leg nbdkit file "$tmp/c.img"
refused_mirror 'no region is a file.*log=FILE' "${remote_uri[leg]}" init=clean
start_mirror "${remote_uri[leg]}" init=clean log=leg.dmlog
client "write 0 4096 0x66" flush
stop_server
start_mirror "${remote_uri[leg]}" log=leg.dmlog
client "read 0 4096 0x66"
stop_server
