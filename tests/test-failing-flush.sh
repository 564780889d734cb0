#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A region that takes writes and then cannot make them durable: a file that a
# FUSE file system (nbdfuse) serves, whose fsync fails, and whose writes can be
# made to fail.  A failed flush or FUA write is EIO for the client and a line in
# the log; and as nobody knows what the region has lost, no later flush may
# succeed, and it is not read any more, even if it is the first.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires nbdfuse libnbd-bin
requires fusermount3 fuse3
[ -w /dev/fuse ] || skip "no access to /dev/fuse"
nbdkit eval --dump-plugin > /dev/null || skip "nbdkit lacks its eval plugin"
set -x

# The server below: flush and write fail while these files exist.
mkdir mnt state
export state=$tmp/state
unmount ()
{
  fusermount3 -q -u -z "$tmp/mnt" || true
}
at_exit unmount

start_fuse ()
{
  rm -f state/* eval.sock
  truncate -s 4M state/disk
  # shellcheck disable=SC2016
  nbdkit -f --exit-with-parent -U "$tmp/eval.sock" eval \
    get_size='echo 4M' thread_model='echo parallel' \
    pread='dd if=$state/disk bs=512 skip=$(($4/512)) count=$(($3/512)) status=none' \
    pwrite='if [ -e $state/no-write ]; then echo EIO no write >&2; exit 1; fi
      dd of=$state/disk bs=512 seek=$(($4/512)) conv=notrunc status=none' \
    can_write=true can_flush=true \
    flush='if [ -e $state/no-flush ]; then echo EIO no flush >&2; exit 1; fi' \
    > eval.log 2>&1 &
  eval_pid=$!
  servers+=("$eval_pid")
  wait_for nbdinfo --can connect "nbd+unix:///?socket=$tmp/eval.sock"
  nbdfuse mnt/region.img --unix "$tmp/eval.sock" > fuse.log 2>&1 &
  fuse_pid=$!
  servers+=("$fuse_pid")
  wait_for test -s mnt/region.img
}

stop_fuse ()
{
  fusermount3 -u mnt
  wait_for has_ended "$fuse_pid"
  forget_server "$fuse_pid"
  wait "$fuse_pid"
  stop_servers "$eval_pid"
}

for p in 0 1; do
  # A flush fails.
  start_fuse
  make_regions 4M a.img
  regions=(a.img mnt/region.img)
  [ $p -eq 1 ] || regions=(mnt/region.img a.img)
  start_dmio "${regions[@]}"
  client "write 4096 4096 0x71" flush "read 4096 4096 0x71"
  touch state/no-flush
  client "write 8192 4096 0x72" "flush EIO"
  logged "region $p \(mnt/region\.img\): flush failed: Input/output error"
  rm state/no-flush
  # The disk works again, but what it had taken before may be lost.
  printf 'lost' | dd of=state/disk bs=1 seek=8192 conv=notrunc status=none
  client "read 8192 4096 0x72" "flush EIO" "write 12288 512 0x73" "flush EIO" \
         "read 12288 512 0x73"
  not_logged 'region .*\(a\.img\).*failed'
  stop_server
  stop_fuse
  holds a.img 4096 4096 0x71
  holds a.img 8192 4096 0x72

  # A write fails, and then works again: EIO that comes and goes.
  start_fuse
  make_regions 4M a.img
  start_dmio "${regions[@]}"
  client "write 0 4194304 0x74"
  touch state/no-write
  client "write 65536 65536 0x75 EIO" "read 65536 65536 0x75" "zero 0 512 EIO"
  rm state/no-write
  client "write 131072 4096 0x76" "read 131072 4096 0x76" \
         "read 65536 65536 0x75" "read 0 512 0" "read 512 512 0x74"
  logged "region $p \(mnt/region\.img\): write of 65536 bytes at offset 65536 failed: Input/output error"
  not_logged 'region .*\(a\.img\).*failed'
  stop_server
  stop_fuse
  holds a.img 65536 65536 0x75
  holds a.img 131072 4096 0x76
done
