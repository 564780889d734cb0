#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The first leg has data here and there and holes between.  A full recovery
# copies the data: legs that were all hole stay thin; one that was full of other
# things is alike, too.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

MiB=1048576

# Pieces that do not begin and end with chunks, and one of zeroes.
make_regions 128M a.img b.img c.img
random_file piece 3000000
for at in 0 20 33 77 127; do
  dd if=piece of=a.img bs=4096 seek=$(( at * 256 + 3 )) count=200 \
     conv=notrunc status=none
done
dd if=/dev/zero of=a.img bs=1M seek=100 count=8 conv=notrunc status=none
random_file d.img $(( 16 * MiB ))
truncate -s 128M d.img

start_counted_remote c
start_mirror init=sync log=log a.img b.img "${remote_uri[c]}" d.img
[ "$(status '[.legs[].state] | map(select(. == "in sync")) | length')" -ge 1 ]
wait_in_sync
stop_server
kill_remote c
same a.img b.img c.img d.img

data=$(( 5 * 200 * 4096 ))
[ "$(allocated b.img)" -lt $(( 2 * data )) ]
[ "$(allocated c.img)" -lt $(( 2 * data )) ]
[ "$(bytes_of c Write)" -lt $(( 2 * data )) ]
[ "$(allocated d.img)" -lt $(( 18 * MiB )) ]
