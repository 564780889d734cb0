#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# -D dmio.io=1 traces each request: what it was and what became of it on each
# region that had a part in it.  Without the flag nothing is traced, -v or not.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
set -x

make_regions 1M a.img
requests=("write 8192 4096 0x41 ENOSPC" "write,fua 0 512 0x42 ENOSPC"
          "zero,no-hole 4096 4096 ENOSPC" flush "read 8192 4096 0x41")

start_dmio -v -D dmio.io=1 a.img /dev/full
client "${requests[@]}"
stop_server
ok='region 0 ok [0-9]+ us'
full='region 1 No space left on device [0-9]+ us'
logged "debug: write count=4096 offset=8192: $ok $full"
logged "debug: write count=512 offset=0 fua: $ok $full"
logged "debug: write zeroes count=4096 offset=4096 no-unmap: $ok $full"
logged "debug: flush count=0 offset=0: $ok region 1 ok [0-9]+ us"
logged "debug: read count=4096 offset=8192: $ok\$"

start_dmio -v a.img /dev/full
client "${requests[@]}"
stop_server
logged "debug: dmio: pwrite count=4096 offset=8192"
not_logged "$ok"
