#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# guestfish partitions the volume, makes a file system on it, writes files,
# trims and reads them back.  Both regions are the same afterwards, and a file
# read from one region alone, without the server, is what was written.
#
# libguestfs runs the disk's file systems in a virtual machine, here emulated.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires guestfish guestfish
requires debugfs e2fsprogs
find /boot -name 'vmlinuz-*' -readable | grep -q . ||
  skip "no readable kernel, install linux-image-cloud-amd64"
set -x

export LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg
export LIBGUESTFS_TRACE=0 LIBGUESTFS_DEBUG=0 DMIO_TIMEOUT=300

make_regions 128M a.img b.img
random_file big 12345678
random_file gone 20000000
echo 'written through the mirror' > small
start_dmio a.img b.img

# qemu reads and writes in whole blocks of the volume; format:raw so that it
# does not look what is in there.
bounded guestfish > guestfish.log <<GUESTFISH
add-drive "" protocol:nbd server:unix:$server_socket format:raw discard:enable
run
part-disk /dev/sda gpt
mkfs ext4 /dev/sda1
mount /dev/sda1 /
upload big /big
upload gone /gone
mkdir /directory
upload small /directory/small
sync
rm /gone
fstrim /
echo start:
part-list /dev/sda
echo sum:
checksum sha256 /big
cat /directory/small
umount /
e2fsck-f /dev/sda1
shutdown
GUESTFISH
cat guestfish.log
grep -x "$(sha256sum < big | cut -d' ' -f1)" guestfish.log
grep -x 'written through the mirror' guestfish.log

stop_server
same a.img b.img

# What was removed and trimmed takes no space, in either.
for region in a.img b.img; do
  [ "$(( $(stat -c '%b * %B' $region) ))" -lt 30000000 ]
done

# Each region alone is the file system.
start=$(sed -n 's/.*part_start: *\([0-9]*\).*/\1/p' guestfish.log | head -n 1)
for region in a.img b.img; do
  debugfs -R "dump /big $region.big" "$region?offset=$start"
  debugfs -R "dump /directory/small $region.small" "$region?offset=$start"
  same big $region.big
  same small $region.small
done
