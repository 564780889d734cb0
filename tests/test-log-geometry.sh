#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# What belongs to the mirror for ever: the size of the volume and of its legs, and
# of the chunks.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

make_regions 4M a.img
make_regions 5M b.img
start_mirror a.img b.img init=clean
logged 'region 1 \(b\.img\) is larger than the volume'
[ "$(status .size)" -eq 4194304 ]
client "write 0 4096 0x61" flush
stop_server

# The size of the chunks.
refused_mirror 'chunk=65536.*1048576.*leave out' a.img b.img chunk=64K
refused_mirror 'chunk=2097152.*1048576.*leave out' a.img b.img chunk=2M
start_mirror a.img b.img chunk=1024K
stop_server

# A leg that has grown, or shrunk, back to the volume or below.
truncate -s 6M b.img
refused_mirror "'b\.img' had 5242880 bytes.*6291456.*count=10240" a.img b.img
start_mirror a.img b.img,count=10240
wait_in_sync
stop_server
truncate -s 4M b.img
refused_mirror "'b\.img' had 5242880 bytes.*4194304" a.img b.img
truncate -s 3M b.img
refused_mirror "'b\.img'.* 3145728 bytes, less than the volume" a.img b.img
truncate -s 0 b.img
refused_mirror "'b\.img'.*size" a.img b.img
truncate -s 5M b.img
start_mirror a.img b.img
wait_in_sync
client "read 0 4096 0x61"
stop_server
cmp -n 4194304 a.img b.img

# Read-only.
if ! is_root; then
  chmod 444 b.img
  refused_mirror "'b\.img'.*writable.*log=none" a.img b.img
  chmod 644 b.img
fi

# Chunks of every size, and volumes that are no multiple of them.
for size in 1 127 128 129 20001; do
  for chunk in 64K 1M 1T; do
    rm -f ./*.dmlog
    make_regions $(( size * 512 )) c.img d.img
    random_file c.img $(( size * 512 ))
    start_mirror c.img d.img init=sync chunk=$chunk
    wait_in_sync
    client "write $(( size * 512 - 512 )) 512 0x63" flush
    stop_server
    same c.img d.img
    start_mirror c.img d.img
    [ "$(status .size)" -eq $(( size * 512 )) ]
    stop_server
  done
done

# A large one: the chunks grow.
rm -f ./*.dmlog
make_regions 4T c.img d.img
start_mirror c.img d.img init=clean
[ "$(status .chunk_size)" -eq $(( 8 << 20 )) ]
[ "$(stat -c %s c.img.dmlog)" -lt 5100000 ]
client "write $(( (4 << 40) - 4096 )) 4096 0x64" flush
stop_server
holds d.img $(( (4 << 40) - 4096 )) 4096 0x64
