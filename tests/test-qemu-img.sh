#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# qemu-img converts an image into the volume and out of it again.  Each region
# then is, byte for byte, the image; holes stay holes, in the map that the
# client sees and on the disk.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-img qemu-utils
requires qemu-io qemu-utils
requires python3 python3
set -x

size=64M
make_regions $size image.img a.img b.img c.img
# 3 MiB of data, in the middle of nothing and at both ends.
random_file data 1M
for offset in 0 20 63; do
  dd if=data of=image.img bs=1M seek=$offset conv=notrunc status=none
done

start_dmio a.img b.img c.img

bounded qemu-img info "nbd:unix:$server_socket" > info.log
grep 'virtual size: 64 MiB' info.log

# With -n the volume is used as it is; with --target-is-zero nothing but the
# data is sent.
bounded qemu-img convert -n --target-is-zero -f raw -O raw \
  image.img "nbd:unix:$server_socket"
bounded qemu-img compare -f raw -F raw image.img "nbd:unix:$server_socket"
bounded qemu-img convert -f raw -O raw "nbd:unix:$server_socket" out.img
same image.img out.img

# The map: offset, length and whether it is data.
bounded qemu-img map --output=json -f raw "nbd:unix:$server_socket" > map.json
python3 - map.json > map.log <<'PYTHON'
import json, sys
extents = []
for e in json.load(open(sys.argv[1])):
    if extents and extents[-1][2] == e["data"]:
        extents[-1][1] += e["length"]
    else:
        extents.append([e["start"], e["length"], e["data"]])
for start, length, data in extents:
    print(start >> 20, length >> 20, "data" if data else "hole")
PYTHON
diff - map.log <<'MAP'
0 1 data
1 19 hole
20 1 data
21 42 hole
63 1 data
MAP

stop_server
same image.img a.img b.img c.img
for file in a.img b.img c.img; do
  [ "$(( $(stat -c '%b * %B' $file) ))" -lt $(( 5 << 20 )) ]
done

# Over a volume that held something else, with zeroes that have to be written.
for file in a.img b.img c.img; do
  random_file $file 64M
done
start_dmio a.img b.img c.img
bounded qemu-img convert -n -f raw -O raw image.img "nbd:unix:$server_socket"
stop_server
same image.img a.img b.img c.img

# qcow2 on the volume: qemu's own check reads its structures back.
start_dmio a.img b.img c.img
bounded qemu-img create -f qcow2 "nbd:unix:$server_socket" 48M
bounded qemu-io -f qcow2 -c 'write -P 0x5a 1M 20M' -c 'discard 3M 1M' \
  -c 'write -P 0xa5 40M 3M' "nbd:unix:$server_socket"
bounded qemu-img check -f qcow2 "nbd:unix:$server_socket"
bounded qemu-io -f qcow2 -c 'read -P 0x5a 1M 2M' -c 'read -P 0 3M 1M' \
  -c 'read -P 0xa5 40M 3M' "nbd:unix:$server_socket" > io.log
! grep -i 'verification failed' io.log || die "wrong data"
stop_server
same a.img b.img c.img
