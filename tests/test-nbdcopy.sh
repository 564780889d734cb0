#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdcopy, with several connections and many requests in flight, fills the
# volume and reads it back, from a file and from a pipe.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires nbdcopy libnbd-bin
set -x

# 45 MiB of data around a hole, and an odd number of sectors.
random_file image.img 20M
truncate -s 40M image.img
random_file data 25000448
cat data >> image.img

make_regions "$(stat -c %s image.img)" a.img b.img
start_dmio a.img b.img
bounded nbdcopy --connections=4 --requests=32 --flush image.img "$uri"
bounded nbdcopy --connections=4 --requests=32 "$uri" out.img
same image.img out.img
bounded nbdcopy "$uri" - | cmp image.img -
stop_server
same image.img a.img b.img

# A pipe: one connection, no zeroes.
make_regions "$(stat -c %s image.img)" a.img b.img
start_dmio a.img b.img
bounded nbdcopy - "$uri" < image.img
stop_server
same image.img a.img b.img
