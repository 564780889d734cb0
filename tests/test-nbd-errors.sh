#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Errors that an NBD server answers: the client sees what the table in
# README.md says, the log names region, operation and errno, the other regions
# have the data, and a read that fails is answered by another region.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

# start ERROR-FILTER-PARAMETER...: the regions a.img, the remote c and b.img; the
# remote fails so when the file "trigger" is there.
start ()
{
  make_regions 4M a.img b.img c.img
  rm -f trigger
  start_remote c nbdkit --filter=error file "$tmp/c.img" \
               error-file="$tmp/trigger" "$@"
  start_dmio read=first timeout=20 a.img "${remote_uri[c]}" b.img
}

# stop OFFSET LENGTH BYTE: the others hold that.
stop ()
{
  not_logged '(a|b)\.img.*failed'
  stop_server_within 2
  holds a.img "$@"
  same a.img b.img
  kill_remote c
}

# For a write that fails: what the server says, what the client gets.
while read -r said text reply; do
  start error-pwrite="$said" error-pwrite-rate=100%
  client "write 0 65536 0x41"
  touch trigger
  client "write 4096 8192 0x42 $reply" "read 4096 8192 0x42" \
         "write,fua 16384 4096 0x43 $reply" "read 16384 4096 0x43"
  rm trigger
  client "read 4096 8192 0x42"
  logged "region 1 \($(region c)\): write of 8192 bytes at offset 4096 failed: ${text//_/ }"
  stop 4096 8192 0x42
done <<'TABLE'
EIO     Input/output_error      EIO
ENOSPC  No_space_left_on_device ENOSPC
EPERM   .                       EPERM
ENOMEM  .                       ENOMEM
EINVAL  .                       EIO
TABLE

# Zero, with which trim is done, too.
start error-zero=EIO error-zero-rate=100%
client "write 0 65536 0x44"
touch trigger
client "zero 4096 8192 EIO" "read 4096 8192" "read 0 4096 0x44"
rm trigger
logged "region 1 \($(region c)\): .*zero.* of 8192 bytes at offset 4096 failed: Input/output error"
stop 4096 8192 0

# The connection is still good: nothing was lost, and nobody reconnects.
start error-pwrite=EIO error-pwrite-rate=100%
touch trigger
client "write 0 4096 0x45 EIO"
[ "$(lost c)" -eq 0 ]
[ "$(back c)" -eq 0 ]
stop 0 4096 0x45

# A read that fails.
make_regions 4M a.img b.img c.img
for file in c.img a.img; do
  dd if=/dev/zero bs=1M count=4 status=none | tr '\0' '\106' > $file
done
start_remote c nbdkit --filter=error file "$tmp/c.img" \
             error-file="$tmp/trigger" error-pread=EIO error-pread-rate=100%
rm -f trigger
start_dmio read=first timeout=20 "${remote_uri[c]}" a.img
client "read 0 4096 0x46"
not_logged 'failed'
touch trigger
client "read 8192 4096 0x46" "read 0 4194304 0x46"
logged "region 0 \($(region c)\): read of 4096 bytes at offset 8192 failed: Input/output error"
stop_server_within 2
# With nothing else to read from.
start_dmio "${remote_uri[c]}"
client "read 8192 4096 0 EIO" "write 8192 4096 0x47"
rm trigger
client "read 8192 4096 0x47"
stop_server_within 2
kill_remote c

# A flush that fails: what was written before may be lost there.
make_regions 4M a.img c.img
start_remote c nbdkit eval get_size='echo 4M' \
  pread="dd if=$tmp/c.img iflag=count_bytes,skip_bytes skip=\$4 count=\$3" \
  pwrite="dd of=$tmp/c.img conv=notrunc oflag=seek_bytes seek=\$4" \
  can_flush='exit 0' \
  flush="[ ! -e $tmp/trigger ] || { echo EIO no; exit 1; } >&2"
start_dmio timeout=20 read=first "${remote_uri[c]}" a.img
client "write 0 4096 0x48" flush "write 0 4096 0x49"
touch trigger
client "flush EIO" "read 0 4096 0x49"
logged "region 0 \($(region c)\): flush failed: Input/output error"
rm trigger
# It stays failed.
client "flush EIO" "read 0 4096 0x49"
stop_server_within 2
holds a.img 0 4096 0x49
kill_remote c

# With a log what it shows is written to it again, and then it can be flushed.
start_remote c nbdkit eval get_size='echo 4M' \
  pread="dd if=$tmp/c.img iflag=count_bytes,skip_bytes skip=\$4 count=\$3" \
  pwrite="dd of=$tmp/c.img conv=notrunc oflag=seek_bytes seek=\$4" \
  can_flush='exit 0' \
  flush="[ ! -e $tmp/trigger ] || { echo EIO no; exit 1; } >&2"
start_nbdkit "$DMIO_PLUGIN" init=clean log="$tmp/log" timeout=20 "${remote_uri[c]}"
client "write 0 4096 0x4a" flush "write 0 4096 0x4b"
touch trigger
client "flush EIO" "read 0 4096 0x4b"
rm trigger
wait_for client "write 4096 4096 0x4c"
client flush "read 0 4096 0x4b"
stop_server_within 2
holds c.img 0 4096 0x4b
