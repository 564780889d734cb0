#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Rule W5 and every answer in between: client-model sends a random mixture of
# requests, many of them overlapping in flight, on 4 connections of depth 32,
# and checks all it reads against its model.  Afterwards all regions are the
# same as the volume.  See client-model.c for what it allows.
#
# DMIO_MODEL_SECONDS: for how long.  DMIO_MODEL_SEED: which requests.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires nbdcopy libnbd-bin
set -x

seconds=${DMIO_MODEL_SECONDS:-10}
model=("${no_aslr[@]}" "$builddir/client-model"
       ${DMIO_MODEL_SEED:+-s "$DMIO_MODEL_SEED"})

make_regions 8M a.img b.img
truncate -s 10M c.img
start_dmio a.img b.img c.img,sector=1001,count=16384
DMIO_TIMEOUT=$(( seconds + 200 )) \
  bounded "${model[@]}" -c 4 -d 32 -t "$seconds" "$uri"
bounded nbdcopy "$uri" volume.img
stop_server
same volume.img a.img b.img
cmp -n 8388608 volume.img c.img 0 $(( 1001 * 512 ))

# The model notices a server that forgets what was written.
start_nbdkit null 8M
if bounded "${model[@]}" -t 2 "$uri"; then
  die "client-model notices nothing"
fi
kill_server
