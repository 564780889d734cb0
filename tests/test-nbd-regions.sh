#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One volume over regions of several kinds: NBD servers by unix socket and by
# TCP, two exports of one server, a part of an export, a file, a file with
# O_DIRECT. Requests of all sizes up to 64 MiB reach all of them.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires qemu-nbd qemu-utils
set -x

mkdir exports
make_regions 80M exports/one exports/two d.img e.img
truncate -s 90M c.img
random_file noise.img 1M
dd if=noise.img of=c.img conv=notrunc bs=1M status=none
dd if=noise.img of=c.img conv=notrunc bs=1M seek=89 status=none
start_remote 'x,y' nbdkit file dir="$tmp/exports"
start_tcp_remote 127.0.0.1 c qemu-nbd --format=raw --discard=unmap -x c/d c.img
socket=$tmp/x,,y.sock
regions=("nbd+unix:///one?socket=$socket"
         "nbd://127.0.0.1:$(cat c.port)/c/d,sector=2048,count=163840"
         "region=nbd+unix:///two?socket=$socket" d.img)
# A private file system may not have it.
direct=e.img
if dd if=/dev/zero of=e.img conv=notrunc oflag=direct bs=4096 count=1 \
      status=none; then
  direct=e.img,direct=on
fi
start_dmio timeout=30 "${regions[@]}" "$direct"

nbdinfo --size "$uri" | grep -x 83886080
client "write 0 512 0x21" "write 512 67108864 0x22" \
       "write,fua 67109376 16776704 0x23" "read 0 512 0x21" \
       "read 512 67108864 0x22" "read 512 67108864 0x22" \
       "read 67109376 16776704 0x23" \
       "zero 1048576 67108864" "write 1049088 1024 0x24" \
       "trim 73400320 1048576" "zero,no-hole 75497472 1048576" flush \
       "status 0 83886080" "cache 0 83886080" \
       "write 83886080 512 0x25 ENOSPC" "write 83885568 512 0x26" \
       "read 1049088 1024 0x24" "read 83885568 512 0x26"
not_logged 'failed'
stop_server_within 2

same exports/one exports/two d.img e.img
cmp -n 83886080 -i 0:1048576 d.img c.img
holds d.img 512 1048064 0x22
holds d.img 1048576 512 0
holds d.img 1049088 1024 0x24
holds d.img 68157440 5242880 0x23
holds d.img 83885568 512 0x26
# Outside of its part nothing has changed.
cmp -n 1048576 c.img noise.img
cmp -i 93323264:0 c.img noise.img
