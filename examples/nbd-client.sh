#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# Serve a mirror over two files and attach it to the kernel's NBD client
# as /dev/nbd0, until Enter is pressed.  Only this client needs root, and
# the kernel module nbd.
#
#   nbd-client.sh A.IMG B.IMG
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 A.IMG B.IMG" >&2; exit 2; }
dmio=${DMIO:-$(dirname "$0")/../plugin/.libs/nbdkit-dmio-plugin.so}

# The first time, the mirror has to be told that the files are alike.
first=()
[ -e "$1.dmlog" ] || first=(init=clean)

dir=$(mktemp -d)
nbdkit -f -U "$dir/socket" "$dmio" region="$1" region="$2" "${first[@]}" &
server=$!
attached=
cleanup ()
{
  [ -z "$attached" ] || nbd-client -d /dev/nbd0 || :
  kill "$server" 2>/dev/null || :
  wait "$server" || :
  rm -rf "$dir"
}
trap cleanup EXIT

for _ in $(seq 100); do
  [ ! -S "$dir/socket" ] || break
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done
modprobe nbd
nbd-client -unix "$dir/socket" /dev/nbd0
attached=yes
read -r -p "The volume is /dev/nbd0.  Press Enter to detach it. "
