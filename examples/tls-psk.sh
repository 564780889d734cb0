#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# A mirror whose regions are reached over TLS, and which is itself served
# over TLS, with keys that both sides know (PSK): encrypted, and open to
# nobody else.
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

# shellcheck source-path=SCRIPTDIR source=functions.sh
. "$(dirname "$0")/functions.sh"

step "A key for the servers of the regions, one for the mirror's clients"
run psktool -u mirror -p regions.psk
run psktool -u client -p volume.psk
run chmod 600 regions.psk volume.psk

step "Two servers that let in only who has the first"
for region in a b; do
  truncate -s 64M $region.img
  serve nbdkit -f --exit-with-parent -U $region.sock \
    --tls=require --tls-psk=regions.psk file $region.img
  await test -S $region.sock
done

step "The mirror has it, and wants the second from its clients"
psk='tls-psk-file=regions.psk'
serve nbdkit -f --exit-with-parent -U mirror.sock \
  --tls=require --tls-psk=volume.psk "$dmio" log=mirror.dmlog init=clean \
  "nbds+unix://mirror@/?socket=a.sock&$psk" \
  "nbds+unix://mirror@/?socket=b.sock&$psk"
uri="nbds+unix://client@/?socket=mirror.sock&tls-psk-file=volume.psk"
await nbdinfo --size "$uri"
run nbdinfo "$uri" | grep -e protocol -e export-size

step "Write to it: both have it"
head -c 20M /dev/urandom >data
run nbdcopy --flush data "$uri"
run cmp -n 20M data a.img
run cmp a.img b.img

step "With the wrong key, or none, there is no way in"
for wrong in "nbds+unix://mirror@/?socket=mirror.sock&$psk" \
             "nbd+unix:///?socket=mirror.sock"; do
  if run nbdinfo "$wrong"; then
    echo "error: this should have been refused" >&2
    exit 1
  fi
done

step "It works"
