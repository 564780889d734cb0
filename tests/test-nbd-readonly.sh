#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A read-only export is a read-only region: with others that can be written,
# every write to the volume fails, but they have it; with none, the volume is
# read-only.  nbdkit -r does not write to any region.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 1M a.img b.img
start_remote a nbdkit -r file "$tmp/a.img"
start_remote b nbdkit file "$tmp/b.img"
start_dmio "${remote_uri[a]}" "${remote_uri[b]}"
logged "$(region a).*read-only"
not_logged "$(region b).*read-only"
client "write 4096 4096 0x41 EPERM" "read 4096 4096 0x41" "zero 0 4096 EPERM" \
       "trim 4096 512 EPERM" flush
logged "region 0 \($(region a)\): write of 4096 bytes at offset 4096 failed: Read-only file system"
stop_server_within 2
holds b.img 4608 3584 0x41
holds a.img 0 1048576 0

random_file a.img 1M
start_dmio "${remote_uri[a]}"
nbdinfo --is read-only "$uri"
bounded nbdcopy "$uri" - | cmp a.img -
stop_server

cp a.img b.img
start_dmio -r "${remote_uri[b]}"
nbdinfo --is read-only "$uri"
bounded nbdcopy "$uri" - | cmp a.img -
stop_server
same a.img b.img
