#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Reads of one leg fail: another serves them, and what could not be read is
# written again.  If it can be read then, the leg stays in sync; if not, it has
# failed, and is recovered later.  (R10)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

read_all ()
{
  client "read 0 65536 0x51" "read 65536 65536 0x51" "read 131072 65536 0x51"
}

# A disk with a bad sector, until that is written.
make_regions 1M a.img e.img
cat > bad-disk.sh <<'SCRIPT'
#!/bin/sh
case $1 in
  get_size) stat -c %s e.img ;;
  can_write | can_flush | flush) ;;
  pread)
    if [ -e bad ] && [ $4 -le 70000 ] && [ $(( $4 + $3 )) -gt 70000 ]; then
      echo EIO >&2
      exit 1
    fi
    dd if=e.img iflag=skip_bytes,count_bytes,fullblock skip=$4 count=$3 ;;
  pwrite)
    dd of=e.img oflag=seek_bytes seek=$4 conv=notrunc
    if [ $4 -le 70000 ] && [ $(( $4 + $3 )) -gt 70000 ]; then
      rm -f bad
    fi ;;
  *) exit 2 ;;
esac
SCRIPT
chmod +x bad-disk.sh
start_remote e nbdkit sh "$tmp/bad-disk.sh"
start_mirror init=clean log=log chunk=64K read=first timeout=10 \
  "${remote_uri[e]}" a.img
client "write 0 1048576 0x51" flush
wait_in_sync
touch bad
read_all
logged 'e\.sock.*read of .*failed'
logged 'e\.sock.*have been written again'
[ ! -e bad ]
[ "$(state 0)" = "in sync" ]
read_all
stop_server
kill_remote e
same a.img e.img

# One that stays bad.
rm log
start_counted_remote e error \
  error-pread-rate=100% error-pread-file="$tmp/no-read" \
  error-pwrite-rate=100% error-pwrite-file="$tmp/no-write"
start_mirror init=clean log=log chunk=64K read=first timeout=2 \
  "${remote_uri[e]}" a.img
touch no-read no-write
client "read 65536 4096 0x51"
[ "$(state 0)" != "in sync" ]
[ "$(status .in_sync)" -eq 1 ]
: > e.ops
read_all
client "write 0 4096 0x52" "read 0 4096 0x52" "read 4096 4096 0x51"
[ "$(bytes_of e Read)" -eq 0 ]

rm no-read no-write
wait_in_sync
client "read 0 4096 0x52" "read 4096 4096 0x51"
stop_server
kill_remote e
same a.img e.img
