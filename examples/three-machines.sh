#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# One volume on three machines: each serves a file, one command mirrors
# them, and reads go on when a cable is pulled out.
#
# The machines are network namespaces, joined to this one by cables (veth
# pairs).  This one is a namespace as well, so that nothing of the real
# network is touched; they all go away with the script.  It needs root, or
# a system that lets users have namespaces.
#
# DMIO is the plugin: the one that was built in place, or "dmio" if it
# is installed.

if [ "${1:-}" != --inside ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(-r)
  exec unshare "${as_root[@]}" --net --mount "$0" --inside
fi

# shellcheck source-path=SCRIPTDIR source=functions.sh
. "$(dirname "$0")/functions.sh"
mount -t tmpfs tmpfs /run       # for the names of the namespaces
mkdir /run/netns

step "Three machines, each with a cable to this one, serve a file each"
n=0
for machine in north south west; do
  n=$((n + 1))
  ip netns add $machine
  ip link add $machine type veth peer name cable netns $machine
  ip address add 10.0.$n.1/24 dev $machine
  ip link set $machine up
  ip -n $machine address add 10.0.$n.2/24 dev cable
  ip -n $machine link set cable up
  truncate -s 64M $machine.img
  # With more threads Debian 12's nbdkit may abort when a connection is cut.
  serve ip netns exec $machine nbdkit -f --exit-with-parent -t 1 \
    file $machine.img
  await nbdinfo --size nbd://10.0.$n.2
done

step "One command mirrors them"
uri="nbd+unix:///?socket=mirror.sock"
serve nbdkit -f --exit-with-parent -U mirror.sock "$dmio" \
  nbd://10.0.1.2 nbd://10.0.2.2 nbd://10.0.3.2 log=mirror.dmlog init=clean \
  control=control.sock timeout=3 2>mirror.log
await nbdinfo --size "$uri"

step "Write to the volume: all three have it"
head -c 20M /dev/urandom >data
run nbdcopy --flush data "$uri"
run cmp -n 20M data north.img
run cmp north.img south.img
run cmp north.img west.img

step "Pull a cable out, and read: the others answer"
run ip link set north down
run nbdcopy "$uri" copy
run cmp -n 20M data copy
await grep 'lost' mirror.log
run grep 'lost' mirror.log

step "Put it in again: nothing had changed, so the machine is back"
run ip link set north up
await grep 'connected again' mirror.log
run grep 'connected again' mirror.log
run nbdcopy --flush copy "$uri"

step "Pull it out, and write: it is out of sync, and the client need not know"
run ip link set north down
head -c 5M /dev/urandom >more
run nbdcopy --flush more "$uri"
run "$dmioctl" -s control.sock status
if cmp -s -n 5M more north.img; then
  echo "error: it has what it cannot have" >&2
  exit 1
fi

step "Put it in again: it gets what it lacks"
run ip link set north up
run "$dmioctl" -s control.sock wait --timeout 60
run cmp north.img south.img

step "It works"
