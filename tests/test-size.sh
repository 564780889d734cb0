#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Row N3: the volume is as large as the smallest region, and a difference is
# said; sector= and count= cut a region out of its file; two commas are one.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires nbdcopy libnbd-bin
set -x

# size_is BYTES
size_is ()
{
  [ "$(bounded nbdinfo --size "$uri")" -eq "$1" ]
}

# The same size: nothing to say.
make_regions 1M a.img b.img
start_dmio a.img b.img
size_is 1048576
not_logged 'size|small|large|differ'
stop_server

# Different sizes, the smallest in any place.
truncate -s 3M c.img
for order in "a.img c.img" "c.img a.img" "c.img a.img b.img"; do
  # shellcheck disable=SC2086
  start_dmio $order
  size_is 1048576
  logged 'c\.img.*(size|small|large|differ|sectors|bytes)|(size|small|large|differ).*c\.img'
  stop_server
done

# What lies beyond the volume is not touched.
random_file data 3M
cp data c.img
start_dmio a.img c.img
client "write 0 1048576 0x41" "zero 0 1048576" flush
stop_server
cmp -n 1048576 c.img /dev/zero
cmp -i 1048576 c.img data

# One region in the middle of its file, another at the end, one whole.
rm -f -- *.img
cp data b.img
cp data c.img
truncate -s 512K a.img
random_file image 512K
start_dmio a.img b.img,sector=2047,count=1024 c.img,sector=5120
size_is 524288
bounded nbdcopy image "$uri"
bounded nbdcopy "$uri" - | cmp image -
stop_server
same image a.img
cmp -n $(( 2047 * 512 )) b.img data
cmp -n 524288 b.img image $(( 2047 * 512 )) 0
cmp -i $(( 3071 * 512 )) b.img data
cmp -n $(( 5120 * 512 )) c.img data
cmp -n 524288 c.img image $(( 5120 * 512 )) 0
[ "$(stat -c %s b.img)" -eq 3145728 ]
[ "$(stat -c %s c.img)" -eq 3145728 ]

# count= makes a volume of a file that does not end with a sector.
truncate -s 100000 odd.img
start_dmio odd.img,count=195
size_is $(( 195 * 512 ))
stop_server

# One sector.
start_dmio a.img,count=1,sector=1023
size_is 512
stop_server

# Two commas, and region= said or not.
mkdir 'odd,dir'
truncate -s 64K 'odd,dir/x,,y,sector=1'
truncate -s 64K plain.img
start_dmio 'odd,,dir/x,,,,y,,sector=1,sector=64' region=plain.img,sector=1
size_is 32768
bounded nbdcopy --destination-is-zero <(head -c 32768 data) "$uri"
stop_server
cmp -n 32768 'odd,dir/x,,y,sector=1' data 32768 0
cmp -n 32768 plain.img data 512 0
