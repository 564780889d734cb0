#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Rule W5 with remote regions, see test-model.sh: alone, and beside a file and
# a file with O_DIRECT, with servers that differ in what they can.
#
# DMIO_MODEL_SECONDS: for how long.  DMIO_MODEL_SEED: which requests.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires nbdcopy libnbd-bin
set -x

seconds=${DMIO_MODEL_SECONDS:-4}
model=("${no_aslr[@]}" "$builddir/client-model"
       ${DMIO_MODEL_SEED:+-s "$DMIO_MODEL_SEED"})

# run REGION...
run ()
{
  start_dmio timeout=60 "$@"
  DMIO_TIMEOUT=$(( seconds + 200 )) \
    bounded "${model[@]}" -c 4 -d 32 -t "$seconds" "$uri"
  bounded nbdcopy "$uri" volume.img
  not_logged failed
  stop_server_within 2
}

make_regions 8M a.img b.img c.img d.img
start_remote a nbdkit file "$tmp/a.img"
start_tcp_remote 127.0.0.1 b nbdkit file "$tmp/b.img"
start_remote c nbdkit --no-sr --filter=nozero --filter=multi-conn --filter=fua \
             file "$tmp/c.img" multi-conn-mode=disable
run "${remote_uri[a]}" "${remote_uri[b]}" "${remote_uri[c]}"
same volume.img a.img b.img c.img

direct=d.img
if dd if=/dev/zero of=d.img conv=notrunc oflag=direct bs=4096 count=1 \
      status=none; then
  direct=d.img,direct=on
fi
kill_remote a
run a.img "${remote_uri[b]}" "$direct"
same volume.img a.img b.img d.img
