#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# Make a partition with a file system on a mirror over two new files, and
# put a file on it.  guestfish starts a small virtual machine for that.
#
#   guestfish.sh FILE A.IMG B.IMG
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 FILE A.IMG B.IMG" >&2; exit 2; }
dmio=${DMIO:-$(dirname "$0")/../plugin/.libs/nbdkit-dmio-plugin.so}
export file=$1

for region in "$2" "$3"; do
  [ ! -e "$region" ] || { echo "error: $region exists already" >&2; exit 1; }
  truncate -s 128M "$region"
done

# $unixsocket and $file are for the shell that nbdkit starts.
# shellcheck disable=SC2016
nbdkit -U - "$dmio" region="$2" region="$3" init=clean --run '
  guestfish --format=raw -a "nbd://?socket=$unixsocket" <<EOF
run
part-disk /dev/sda mbr
mkfs ext4 /dev/sda1
mount /dev/sda1 /
upload "$file" "/$(basename "$file")"
ll /
EOF'
