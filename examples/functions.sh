# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash

# What the examples with NBD servers share: they tell what they do, in a
# directory of their own, and end all servers that they started.

set -euo pipefail

# The plugin: DMIO, or the one that was built in place.
dmio=${DMIO:-$(dirname "$0")/../plugin/.libs/nbdkit-dmio-plugin.so}
[[ $dmio != */* ]] || dmio=$(realpath "$dmio")
# shellcheck disable=SC2034
dmioctl=$(realpath -m "${DMIOCTL:-$(dirname "$0")/../plugin/dmioctl}")

step () { printf '\n== %s\n' "$*"; }
run () { printf '$ %s\n' "$*"; "$@"; }

# serve COMMAND...: run a server in the background.
servers=()
serve ()
{
  printf '$ %s &\n' "$*"
  "$@" </dev/null &
  servers+=($!)
}

# await COMMAND...: until it succeeds, for at most 30 seconds.
await ()
{
  local end=$((SECONDS + 30))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "error: failed: $*" >&2; return 1; }
    sleep 0.1
  done
}

# Last one first, as the mirror is a client of the others.  A server waits
# for its clients, also for one that is behind a cable that was pulled out.
stop_servers ()
{
  local i pid
  for ((i = ${#servers[@]} - 1; i >= 0; i--)); do
    pid=${servers[i]}
    kill "$pid" 2>/dev/null || :
    timeout 6 tail -f /dev/null --pid "$pid" || kill -KILL "$pid" || :
    wait "$pid" || :
  done 2>/dev/null
  servers=()
}

work=$(mktemp -d)
trap 'stop_servers; cd /; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"
