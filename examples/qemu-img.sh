#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# Copy a disk image of any format into a mirror over two new files, and
# check the mirror against it.
#
#   qemu-img.sh IMAGE A.IMG B.IMG
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 IMAGE A.IMG B.IMG" >&2; exit 2; }
dmio=${DMIO:-$(dirname "$0")/../plugin/.libs/nbdkit-dmio-plugin.so}
export image=$1

size=$(qemu-img info --output=json "$image" |
         sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -n 1)
for file in "$2" "$3"; do
  [ ! -e "$file" ] || { echo "error: $file exists already" >&2; exit 1; }
  truncate -s "$(((size + 511) / 512 * 512))" "$file"
done

# $uri is set by nbdkit.
# shellcheck disable=SC2016
nbdkit -U - "$dmio" region="$2" region="$3" init=clean --run '
  qemu-img convert -p -n "$image" -O raw "$uri" &&
  qemu-img compare "$image" "$uri"'
