#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A device with blocks of 4096 bytes beside a file: the volume has them too and
# ends with a whole one, requests of other sizes are refused before any region is
# touched, and so are parts of the device.  test-nbd-block-size.sh is about
# those of NBD servers.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires losetup mount
requires_python_nbd
is_root || skip "only root can make loop devices"
set -x

detach ()
{
  [ -z "${loop:-}" ] || losetup -d "$loop"
}
at_exit detach

# block_size_is BYTES, size_is BYTES: of the volume.
block_size_is ()
{
  bounded nbdinfo --json "$uri" > info
  grep "\"block_size_minimum\": $1," info
}

size_is ()
{
  [ "$(bounded nbdinfo --size "$uri")" -eq "$1" ]
}

random_file image 1M
cp image disk
head -c $(( 1048576 - 512 )) image > short.img
cp image long.img
loop=$(losetup -f --show -b 4096 disk) || skip "no loop device is free"

# The file is seven sectors longer than the last whole block.
start_dmio short.img "$loop"
block_size_is 4096
size_is $(( 1048576 - 4096 ))
for offset in 512 1024 2048 4095; do
  client "write $offset 4096 0x11 EINVAL" "read $offset 4096 0 EINVAL" \
         "zero $offset 4096 EINVAL" "trim $offset 4096 EINVAL" \
         "cache $offset 4096 EINVAL" "status $offset 4096 EINVAL"
done
for length in 512 2048 4608; do
  client "write 4096 $length 0x11 EINVAL" "read 4096 $length 0 EINVAL" \
         "zero 4096 $length EINVAL" "zero,no-hole 4096 $length EINVAL" \
         "write,fua 4096 $length 0x11 EINVAL" "trim 4096 $length EINVAL" \
         "cache 4096 $length EINVAL" "status 4096 $length EINVAL"
done
for op in read write 'write zeroes' discard cache 'block status'; do
  logged "$op of 4096 bytes at offset 512 .* 4096 bytes.*--filter=blocksize"
done
not_logged 'failed|out of sync'
cmp -n $(( 1048576 - 512 )) short.img image
cmp "$loop" image

# Whole blocks, up to the end, and what is behind it.
client "write 0 4096 0x11" "write 1040384 4096 0x22" "zero 8192 4096" flush \
       "write 1044480 4096 0x33 ENOSPC" "read 0 4096 0x11" \
       "read 1040384 4096 0x22" "read 8192 4096" "status 0 1044480"
stop_server
for region in short.img "$loop"; do
  holds "$region" 0 4096 0x11
  holds "$region" 8192 4096 0
  holds "$region" 1040384 4096 0x22
done
cmp -n 3584 -i 1044480 short.img image
cmp -n 4096 -i 1044480 "$loop" image
same <(head -c 1044480 short.img) <(head -c 1044480 "$loop")

# The remedy which the message names.
start_dmio --filter=blocksize short.img "$loop"
client "write 12800 512 0x44" "read 12800 512 0x44"
stop_server
for region in short.img "$loop"; do
  holds "$region" 12800 512 0x44
  cmp -n 512 -i 12288 "$region" image
  cmp -n 3072 -i 13312 "$region" image
done

# Parts of the device: whole blocks of it, but the file beside it need not have
# any.
refused ()
{
  if bounded "${nbdkit[@]}" -U - "$DMIO_PLUGIN" log=none "$@" --run true \
             2> refused.log; then
    die "not refused: $*"
  fi
  grep "$loop.*sector= and count= must be multiples of 8.*4096" refused.log
}
refused long.img "$loop,sector=4"
refused "$loop,count=12" long.img
refused "$loop,sector=8,count=9"
refused "$loop,sector=1,count=8"
start_dmio "$loop,sector=8,count=16" long.img,sector=3
size_is 8192
client "write 4096 4096 0x55" flush
stop_server
holds "$loop" 8192 4096 0x55
holds long.img $(( 1536 + 4096 )) 4096 0x55
cmp -n $(( 1536 + 4096 )) long.img image

# Through the page cache there is no such limit.
start_dmio "$loop,direct=off,sector=3" short.img
block_size_is 512
client "write 512 512 0x66" "read 512 512 0x66" flush
stop_server
holds "$loop" 2048 512 0x66
holds short.img 512 512 0x66
