#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Regions that are block devices (loop devices, one with sectors of 4096
# bytes): written, zeroed, trimmed and flushed, read back through the volume
# and from each device; the space is given back.  Past the page cache the block
# size of the volume is that of the devices.  Through it, requests that are
# smaller than the device's sectors are possible, and do not switch off fast ones.
# A device that is mounted, or named under two names, is refused.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires losetup mount
requires mkfs.ext4 e2fsprogs
requires_python_nbd
is_root || skip "only root can make loop devices"
set -x

loops=()
detach ()
{
  local loop
  umount "$tmp/mnt" 2> /dev/null
  for loop in "${loops[@]}"; do
    losetup -d "$loop"
  done
}
at_exit detach

# attach FILE OPTION...: sets $loop.
attach ()
{
  loop=$(losetup -f --show "${@:2}" "$1") || skip "no loop device is free"
  loops+=("$loop")
}

client ()
{
  bounded "$python" "$srcdir/client.py" "$@"
}

# allocated FILE: how many bytes of it are.
allocated ()
{
  sync "$1"
  echo "$(( $(stat -c '%b * %B' "$1") ))"
}

make_regions 16M a.img b.img c.img
attach a.img
a=$loop
attach b.img -b 4096
b=$loop

start_dmio "$a" "$b" c.img
bounded nbdinfo --json "$uri" > info
grep '"block_size_minimum": 4096' info
client "$uri" 'write 0 65536 0x66' 'write,fua 65536 4096 0x77' flush \
       'zero 131072 65536' 'trim 262144 65536' \
       'write 512 512 0x22 EINVAL' 'read 0 65536 0x66' 'read 65536 4096 0x77' \
       'read 131072 65536'
stop_server
same a.img b.img c.img

start_dmio "$a,direct=off" "$b,direct=off" c.img
bounded nbdinfo --json "$uri" > info
grep '"block_size_minimum": 512' info
grep '"can_fast_zero": true' info
client "$uri" 'write 0 16777216 0x11' 'write 512 512 0x22' \
       'write,fua 8192 4096 0x33' 'flush' \
       'read 0 512 0x11' 'read 512 512 0x22' 'read 1024 7168 0x11' \
       'read 8192 4096 0x33' 'read 12288 4096 0x11' 'cache 0 65536'
for region in a.img b.img c.img; do
  [ "$(allocated $region)" -ge $(( 16 << 20 )) ]
done

# Not whole sectors of one of the devices.
client "$uri" 'zero 1048576 512' 'trim 1049600 512' \
       'read 1048576 512' 'read 1049088 512 0x11' \
       'read 1049600 512' 'read 1050112 512 0x11'
# Still quick.
client "$uri" 'zero,fast 2097152 4194304' 'trim,fua 8388608 4194304' \
       'zero,fua 13631488 4096' \
       'read 2097152 4194304' 'read 6291456 4096 0x11' \
       'read 8388608 4194304' 'read 13631488 4096' 'flush'
# These last: where the file system under the loop device cannot do it, the
# kernel switches off the quick ones as well.
client "$uri" 'zero,no-hole 1050624 512' 'zero,no-hole 12582912 1048576' \
       'read 1050624 512' 'read 1051136 512 0x11' 'read 12582912 1048576'
not_logged 'failed'
same "$a" "$b" c.img
stop_server
for region in a.img b.img c.img; do
  [ "$(allocated $region)" -le $(( 10 << 20 )) ]
done
same a.img b.img c.img

# refused MESSAGE REGION...
refused ()
{
  if bounded "${nbdkit[@]}" -U - "$DMIO_PLUGIN" log=none "${@:2}" \
             --run true 2> refused.log; then
    die "not refused: ${*:2}"
  fi
  grep -E "$1" refused.log
}

mknod again b "$(stat -c 0x%t "$a")" "$(stat -c 0x%T "$a")"
refused "again.*is the same file as .*$a.*once" "$a" again
mkfs.ext4 -q "$a"
mkdir mnt
mount "$a" mnt
refused "$a.*mounted" "$a" c.img
umount mnt

# A device is a region in parts.
start_dmio "$a,sector=2048,count=2048" "$b,count=2048"
client "$uri" 'write 0 1048576 0x44' 'write 1048576 512 0 ENOSPC'
stop_server
cmp -n 1048576 "$b" <(head -c 1048576 /dev/zero | tr '\0' '\104')
cmp -n 1048576 -i 1048576:0 "$a" "$b"
