#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdinfo --list shows one export, and its description says what is mirrored.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
set -x

make_regions 1M a.img b.img c.img
start_dmio a.img b.img c.img

bounded nbdinfo --list "$uri" > list.log
[ "$(grep -c '^export=' list.log)" -eq 1 ]
grep '^export="":' list.log
grep -E 'description: .*3 ' list.log
grep 'export-size: 1048576 ' list.log

# The same for a client that just opens it, by any name.
for name in "" disk; do
  bounded nbdinfo "nbd+unix:///$name?socket=$server_socket" > info.log
  grep -E 'description: .*3 ' info.log
  grep 'export-size: 1048576 ' info.log
done
stop_server
