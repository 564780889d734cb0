#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One of three regions fails, in turn the first, the second and the third, in
# ways that real ones do: ENOSPC, EFBIG, EROFS, EIO.  The client sees the error
# of the table in README.md; a log line names the region, its spec, the
# operation, offset, length and errno text; the other two regions hold the data;
# and reads never come from the one that missed a write, even if it is named
# first and works again.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires unshare util-linux
requires prlimit util-linux
requires setpriv util-linux
set -x

# regions POSITION SPEC: sets regions to a.img and b.img, both new, and SPEC at
# that position.
regions ()
{
  make_regions 4M a.img b.img
  regions=(a.img b.img)
  regions=("${regions[@]:0:$1}" "$2" "${regions[@]:$1}")
}

# others_hold OFFSET LENGTH BYTE
others_hold ()
{
  holds a.img "$@"
  holds b.img "$@"
  same a.img b.img
}

for p in 0 1 2; do
  # A device that is always full, and reads as zero.
  regions $p /dev/full
  start_dmio "${regions[@]}"
  client "write 8192 4096 0x41 ENOSPC" "read 8192 4096 0x41" \
         "write,fua 65536 65536 0x42 ENOSPC" "read 65536 65536 0x42" \
         "zero 8192 512 ENOSPC" "read 8192 512 0" "read 8704 3584 0x41" flush
  logged "region $p \(/dev/full\): write of 4096 bytes at offset 8192 failed: No space left on device"
  logged "region $p \(/dev/full\): .*zero.* of 512 bytes at offset 8192 failed: No space left on device"
  not_logged "region .*\([^)]*(a|b)\.img\).*failed"
  stop_server
  others_hold 8192 512 0
  others_hold 8704 3584 0x41
  others_hold 65536 65536 0x42

  # A file system that runs full and then has room again.
  mkdir -p small
  regions $p small/c.img
  launcher=(unshare -m)
  is_root || launcher=(unshare -r -m)
  # shellcheck disable=SC2016
  launcher+=(sh -c 'mount -t tmpfs -o size=1m dmio-test small &&
                    truncate -s 4M small/c.img && exec "$@"' sh)
  start_dmio "${regions[@]}"
  launcher=()
  client "write 0 524288 0x43" "write 1048576 1048576 0x44 ENOSPC" \
         "read 1048576 1048576 0x44" "trim 0 1048576" \
         "write 3145728 65536 0x45" "read 3145728 65536 0x45" \
         "read 1048576 1048576 0x44" flush
  logged "region $p \(.*small/c\.img\): write of 1048576 bytes at offset 1048576 failed: No space left on device"
  not_logged "region .*\([^)]*(a|b)\.img\).*failed"
  stop_server
  others_hold 1048576 1048576 0x44
  others_hold 3145728 65536 0x45

  # A limit on the size of files: this region's second half is beyond it.
  make_regions 12M c.img
  regions $p c.img,sector=12288,count=8192
  launcher=(prlimit --fsize=8388608)
  start_dmio "${regions[@]}"
  launcher=()
  client "write 0 65536 0x46" "write 2097152 65536 0x47 ENOSPC" \
         "write 0 512 0x48" "read 0 512 0x48" "read 2097152 65536 0x47" flush
  logged "region $p \(.*c\.img,sector=12288,count=8192\): write of 65536 bytes at offset 2097152 failed: File too large"
  not_logged "region .*\([^)]*(a|b)\.img\).*failed"
  stop_server
  others_hold 0 512 0x48
  others_hold 2097152 65536 0x47
  holds c.img 6291456 512 0x48
  holds c.img 8388608 4194304 0

  # A file that may only be read.  Root may write it all the same, unless it
  # gives up that privilege.
  make_regions 4M c.img
  chmod 0444 c.img
  regions $p c.img
  is_root && launcher=(setpriv --bounding-set -dac_override)
  start_dmio "${regions[@]}"
  launcher=()
  logged "region $p \(.*c\.img\).*read-only"
  client "write 4096 4096 0x49 EPERM" "read 4096 4096 0x49" \
         "zero 0 512 EPERM" "trim 4096 512 EPERM" flush
  logged "region $p \(.*c\.img\): write of 4096 bytes at offset 4096 failed: Read-only file system"
  not_logged "region .*\([^)]*(a|b)\.img\).*failed"
  stop_server
  others_hold 4608 3584 0x49
  holds c.img 0 4194304 0

  # A file that is truncated underneath: what it had is lost.
  random_file c.img 4194304
  regions $p c.img
  start_dmio "${regions[@]}"
  client "write 0 4194304 0x4a"
  truncate -s 1M c.img
  client "read 2097152 4096 0x4a" "write 2097152 4096 0x4b EIO" \
         "read 2097152 4096 0x4b" "read 0 65536 0x4a" "flush EIO"
  logged "region $p \(.*c\.img\): write of 4096 bytes at offset 2097152 failed: Input/output error"
  [ $p -ne 0 ] ||
    logged "region 0 \(.*c\.img\): read of 4096 bytes at offset 2097152 failed: Input/output error"
  # It does not come back, also if the file is long enough again.
  truncate -s 4M c.img
  client "write 0 512 0x4c EIO" "read 0 512 0x4c" "read 3145728 512 0x4a"
  not_logged "region .*\([^)]*(a|b)\.img\).*failed"
  stop_server
  others_hold 0 512 0x4c
  others_hold 2097152 4096 0x4b
done

# Two fail in different ways.  ENOSPC and EIO: ENOSPC.  ENOSPC and EROFS: EIO.
make_regions 4M a.img b.img
start_dmio a.img /dev/full b.img
truncate -s 0 b.img
client "write 0 4096 0x4d ENOSPC" "read 0 4096 0x4d"
logged "region 1 .*write of 4096 bytes at offset 0 failed: No space left on device"
logged "region 2 .*write of 4096 bytes at offset 0 failed: Input/output error"
stop_server
holds a.img 0 4096 0x4d

make_regions 4M a.img b.img
chmod 0444 b.img
is_root && launcher=(setpriv --bounding-set -dac_override)
start_dmio a.img /dev/full b.img
launcher=()
client "write 0 4096 0x4e EIO" "read 0 4096 0x4e"
stop_server
holds a.img 0 4096 0x4e

# All fail: nothing is left to read.
make_regions 4M a.img
random_file b.img 4M
start_dmio a.img b.img
truncate -s 0 a.img b.img
client "read 0 4096 0 EIO" "write 0 4096 0x4f EIO" "read 0 4096 0 EIO"
logged "region 0 .*read of 4096 bytes at offset 0 failed: Input/output error"
logged "region 1 .*read of 4096 bytes at offset 0 failed: Input/output error"
stop_server
