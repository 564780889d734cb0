#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# dmioctl log: what is in a copy of the log, without a server, and what is wrong in
# one that was damaged.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

# describe FILE: it must be all right.
describe ()
{
  bounded "${no_aslr[@]}" "$DMIOCTL" log "$1" > description.text
  cat description.text
}

# wrong CAUSE FILE
wrong ()
{
  local status=0
  bounded "${no_aslr[@]}" "$DMIOCTL" log "$2" > description.text \
    2> error.text || status=$?
  cat description.text error.text
  [ $status -eq 1 ]
  grep -E "^dmioctl: .*$1" error.text
}

make_regions 64M a.img b.img
start_mirror a.img b.img init=clean chunk=64K
uuid=$(status .uuid)
client "write 0 1048576 0x61" flush
kill_server

# After a crash: dirty.
describe a.img.dmlog
grep -x "log: $uuid, version 1" description.text
grep -x 'volume: 64 MiB, 1024 chunks of 64 KiB' description.text
grep -E '^(1|1\.[0-9]) MiB dirty: ' description.text
grep -x "copy 0     $PWD/a\.img\.dmlog  in use" description.text
grep -x "copy 1     $PWD/b\.img\.dmlog  in use" description.text
grep -E "^region 0   $PWD/a\.img  in sync" description.text
grep -E "^region 1   $PWD/b\.img  in sync" description.text
! log_is_clean a.img.dmlog ||
  die "accepted: log_is_clean a.img.dmlog"

# After an orderly end: clean.  It is only read.
start_mirror a.img b.img
wait_in_sync
dmioctl fail b.img
client "write 1048576 1048576 0x62" flush
stop_server
chmod 444 a.img.dmlog
sha256sum a.img.dmlog > before.text
log_is_clean a.img.dmlog
describe a.img.dmlog
grep -E "^region 1 .* failed, lacks [12](\.[0-9])? MiB" description.text
sha256sum -c before.text
describe b.img.dmlog
grep -x "log: $uuid, version 1" description.text

# No log at all.
wrong 'No such file' missing.dmlog
wrong 'directory' "$PWD"
wrong '' a.img
truncate -s 16M blank.dmlog
wrong '' blank.dmlog
: > empty.dmlog
wrong '' empty.dmlog

# A bit in each of the blocks that are in use, one after another.
chmod 644 a.img.dmlog
for block in 0 1 2 3 4 5; do
  cp a.img.dmlog bad.dmlog
  printf '\377' |
    dd of=bad.dmlog bs=1 seek=$(( block * 4096 + 300 )) conv=notrunc status=none
  ! cmp -s a.img.dmlog bad.dmlog || continue
  wrong '' bad.dmlog
  grep -E 'wrong: |wrong' description.text error.text
done

# Where the copies are is behind all that, and nothing depends on it.
cp a.img.dmlog bad.dmlog
printf '\377' | dd of=bad.dmlog bs=1 seek=$(( (3 + 1 + 64 * 2 + 1) * 4096 + 300 )) \
                   conv=notrunc status=none
describe bad.dmlog
grep -E "^copy 0     $PWD/a\.img\.dmlog +in use" description.text
grep -E '^copy 1     \(place not known\) +in use' description.text
truncate -s $(( (3 + 1 + 64 * 2) * 4096 )) bad.dmlog
describe bad.dmlog
[ "$(grep -c '(place not known)  in use' description.text)" -eq 2 ]
