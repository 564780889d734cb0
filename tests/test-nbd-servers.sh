#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Regions on NBD servers of many kinds, each beside a file: over unix sockets
# and TCP, with and without structured replies, block status, zero, trim, FUA
# and flush, with small blocks, qemu-nbd on raw and qcow2 images.  Each kind
# of request works with all of them, and both regions are the same afterwards.
# The file is write-mostly, so what is read and the block status come from the
# server.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires qemu-nbd qemu-utils
requires nbdcopy libnbd-bin
set -x

can_fast_zero=0

# works: the remote c, of 8 MiB and all zero, is a good region.
works ()
{
  make_regions 8M a.img
  start_dmio timeout=20 a.img,write-mostly "${remote_uri[c]}"
  client "write 0 4096 0x11" "write,fua 4096 65536 0x12" \
         "write 1048576 3145728 0x13" "write 8384512 4096 0x14" \
         "zero 1052672 4096" "zero,no-hole 1060864 65536" \
         "zero,fua 2097152 1048576" "trim 3145728 65536" \
         "trim,fua 8192 4096" "write 16384 4096 0x15" flush \
         "cache 0 8388608" "status 0 8388608" \
         "read 0 4096 0x11" "read 12288 4096 0x12" "read 16384 4096 0x15" \
         "read 1052672 4096" "read 1060864 65536" "read 1048576 4096 0x13" \
         "read 2093056 4096 0x13" "read 2097152 1048576" \
         "read 3211264 4096 0x13" "read 8384512 4096 0x14"
  # Trim is done if it is quick everywhere.
  if nbdinfo --can fast-zero "$uri"; then
    client "read 3145728 65536" "read 8192 4096" "zero,fast 1048576 65536" \
           "read 1048576 65536"
    can_fast_zero=$(( can_fast_zero + 1 ))
  fi
  # It skips what is said to be zero.
  bounded nbdcopy "$uri" volume.img
  not_logged 'failed'
  stop_server_within 2
  same volume.img a.img
  bounded nbdcopy --request-size=65536 "${remote_uri[c]}" - | cmp a.img -
  kill_remote c
}

# file OPTION... -- PARAMETER...
file ()
{
  local options=()
  make_regions 8M c.img
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  start_remote c nbdkit "${options[@]}" file "$tmp/c.img" "${@:2}"
}

file
works
file --no-sr
works
file --filter=noextents
works
file --filter=nozero
works
file --filter=fua
works
file --filter=fua -- fuamode=emulate
works
file --filter=fua -- fuamode=force
works
file --filter=multi-conn -- multi-conn-mode=disable
works
file --filter=blocksize-policy -- blocksize-minimum=4096 \
     blocksize-maximum=65536 blocksize-error-policy=error
works
start_remote c nbdkit memory 8M
works

# Only reads and writes.
make_regions 8M c.img
start_remote c nbdkit eval get_size='echo 8M' \
  pread="dd if=$tmp/c.img iflag=count_bytes,skip_bytes skip=\$4 count=\$3" \
  pwrite="dd of=$tmp/c.img conv=notrunc oflag=seek_bytes seek=\$4"
works

make_regions 8M c.img
start_remote c qemu-nbd --format=raw c.img
works
make_regions 8M c.img
start_remote c qemu-nbd --format=raw --discard=unmap --detect-zeroes=unmap \
             --export-name=disk c.img
remote_uri[c]=${remote_uri[c]/:\/\/\//:\/\/\/disk}
works
rm c.img
bounded qemu-img create -f qcow2 c.img 8M
start_remote c qemu-nbd --format=qcow2 --discard=unmap c.img
works
bounded qemu-img check c.img

make_regions 8M c.img
start_tcp_remote 127.0.0.1 c nbdkit file c.img
works
make_regions 8M c.img
start_tcp_remote 127.0.0.1 c qemu-nbd --format=raw c.img
works
make_regions 8M c.img
start_tcp_remote 127.0.0.1 c nbdkit file c.img
remote_uri[c]=nbd://localhost:$(cat c.port)
works

[ $can_fast_zero -ge 2 ]

# allocated: how many bytes of the server's file are.
allocated ()
{
  sync c.img
  echo $(( $(stat -c '%b * %B' c.img) ))
}

# Zeroes give back the space, unless they must not.
file
start_dmio timeout=20 "${remote_uri[c]}"
client "write 0 4194304 0x16" "zero,no-hole 0 2097152" "read 0 2097152"
[ "$(allocated)" -ge 4194304 ]
client "zero 0 2097152" "read 0 2097152"
[ "$(allocated)" -lt 3145728 ]
stop_server_within 2
