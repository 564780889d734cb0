#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# qemu's own NBD client: patterns written, zeroed with and without unmapping,
# discarded and flushed read back right through the volume, and all regions are
# the same afterwards.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io qemu-utils
set -x

# qemu_io COMMAND...
qemu_io ()
{
  local command args=()
  for command; do
    args+=(-c "$command")
  done
  bounded qemu-io -f raw -d unmap "${args[@]}" "nbd:unix:$server_socket" > io.log
  ! grep -iE 'failed|error' io.log
}

make_regions 16M a.img b.img c.img
start_dmio a.img b.img c.img

qemu_io 'write -P 0x11 0 16M' 'flush'
# At the end of the volume, and not aligned to pages.
qemu_io 'write -P 0x22 512 512' 'write -P 0x33 4608 8192' \
        'write -P 0x44 16776704 512' 'write -f -P 0x55 1M 64k'
qemu_io 'write -z 2M 1M' 'write -z -u 4M 1M' 'write -z -u 8389120 1024'
qemu_io 'discard 10M 2M' 'flush'
# Several in flight.
qemu_io 'aio_write -P 0x66 6M 256k' 'aio_write -P 0x77 7M 256k' \
        'aio_write -z 13M 512k' 'aio_flush' 'flush'

qemu_io 'read -P 0x11 0 512' 'read -P 0x22 512 512' 'read -P 0x11 1k 3584' \
        'read -P 0x33 4608 8192' 'read -P 0x11 12800 1035776' \
        'read -P 0x55 1M 64k' 'read -P 0x11 1114112 983040' \
        'read -P 0 2M 1M' 'read -P 0x11 3M 1M' 'read -P 0 4M 1M' \
        'read -P 0x11 5M 1M' 'read -P 0x66 6M 256k' 'read -P 0x77 7M 256k' \
        'read -P 0x11 8M 512' 'read -P 0 8389120 1024' \
        'read -P 0x11 8390144 2095616' \
        'read -P 0 10M 2M' 'read -P 0x11 12M 1M' 'read -P 0 13M 512k' \
        'read -P 0x11 14155776 2620928' 'read -P 0x44 16776704 512'

# A pattern that is not there is noticed.
if qemu_io 'read -P 0x12 0 512'; then
  die "qemu-io verifies nothing"
fi

stop_server
same a.img b.img c.img
