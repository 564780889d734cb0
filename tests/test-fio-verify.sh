#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# fio writes blocks of random sizes in random order, 32 in flight on each of two
# connections, and verifies what it reads back by checksum.  The regions are the
# same afterwards.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires fio fio
fio --enghelp | grep -qw nbd || skip "fio has no nbd engine, install fio"
set -x

make_regions 64M a.img b.img c.img
start_dmio a.img b.img c.img

# Every block is written once, so all of them can be verified afterwards.  Half
# of the volume for each job.
bounded fio --output=fio.log --name=verify --ioengine=nbd --uri="$uri" \
  --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
  --iodepth=32 --numjobs=2 --size=32M --offset_increment=32M \
  --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_async=0 \
  --fsync=200 --randrepeat=0 --group_reporting
grep 'err= 0' fio.log
# It did write and it did read.
grep -E 'WRITE: .*io=6[0-9](\.[0-9]*)?MiB' fio.log
grep -E 'READ: .*io=6[0-9](\.[0-9]*)?MiB' fio.log
stop_server
same a.img b.img c.img

# A change behind its back, wherever it reads, is noticed, so the verification is
# real.
start_dmio a.img b.img c.img
bounded fio --output=fio2.log --name=verify --ioengine=nbd --uri="$uri" \
  --rw=write --bs=64k --iodepth=32 --size=8M --verify=crc32c --do_verify=0
for region in a.img b.img c.img; do
  printf 'dmio' | dd of=$region bs=1 seek=1000000 conv=notrunc status=none
done
if bounded fio --output=fio3.log --name=verify --ioengine=nbd --uri="$uri" \
     --rw=read --bs=64k --iodepth=32 --size=8M --verify=crc32c \
     --verify_fatal=1; then
  die "fio verifies nothing"
fi
stop_server
