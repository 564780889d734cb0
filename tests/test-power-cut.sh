#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The machine on which the server runs loses power under load: a virtual
# one, killed together with its disks, which are nbdkit's cache filter and lose
# what was not flushed.  After the next start what was acknowledged and flushed
# is there, what is read does not change, and the regions are alike when the
# server says so; and so in the end, after the machine was switched off as it
# should be.
#
# Once the regions and the copies of the log are four disks; once they are files
# on the file systems of two.  What the machine does is in vm/init.
#
# DMIO_ROUNDS: how often power is lost, in all.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
# shellcheck source=vm/functions.sh
. "$srcdir/vm/functions.sh"
requires debugfs e2fsprogs
set -x

rounds=${DMIO_ROUNDS:-2}
RANDOM=${DMIO_SEED:=$$}
echo "DMIO_SEED=$DMIO_SEED"

build_vm "$(command -v nbdkit)" "$DMIO_PLUGIN" "$DMIOCTL"

# start_machine PARAMETERS: with the disks that have been started as remotes.
# Somebody may take the ports before: then try others.
start_machine ()
{
  local net disk server
  local -a devices
  for disk in a b c d; do
    [ -n "${remote_pid[$disk]:-}" ] || continue
    server=server.type=unix,server.path=$tmp/$disk.sock
    devices+=(-blockdev "driver=nbd,node-name=$disk,$server"
              -device "virtio-blk-pci,drive=$disk")
  done
  for _ in $(seq 20); do
    port=$(shuf -n 1 -i 20000-31999)
    net=user,id=net,hostfwd=tcp:127.0.0.1:$port-:10809
    net+=,hostfwd=tcp:127.0.0.1:$(( port + 1 ))-:10810
    start_vm "$net" "$1" "${devices[@]}"
    uri=nbd://127.0.0.1:$port
    if wait_vm serving; then
      wait_for nbdinfo --can connect "$uri" > /dev/null 2>&1
      return 0
    fi
    kill_vm
  done
  die "the machine does not start"
}

cut_power ()
{
  local disks=("${!remote_pid[@]}")
  kill -KILL "$vm_pid" "${remote_pid[@]}"
  kill_vm
  kill_remote "${disks[@]}"
  for disk in "${disks[@]}"; do
    restart_remote "$disk"
  done
}

settle ()
{
  wait_vm 'in sync'
  check_volume -c 2
  "same_$1"
}

same_disks ()
{
  same a.img b.img
}

# Copies, whose journals can be replayed.
same_files ()
{
  local disk
  for disk in a b; do
    cp --sparse=always $disk.img copy.img
    e2fsck -fp copy.img || [ $? -le 1 ]
    rm -f $disk.leg
    debugfs -R "dump leg.img $disk.leg" copy.img
    [ "$(stat -c %s $disk.leg)" -eq $(( 8 << 20 )) ]
  done
  same a.leg b.leg
}

# power_cuts NUMBER SCENARIO SIZE DISK...
power_cuts ()
{
  local number=$1 scenario=$2 size=$3 disk n
  rm -f blocks
  for disk in "${@:4}"; do
    make_regions "$size" "$disk.img"
    start_remote "$disk" nbdkit --filter=cache file "$tmp/$disk.img" \
                 cache=writeback
  done
  start_machine "dmio.scenario=$scenario dmio.new=yes"
  for n in $(seq "$number"); do
    start_crash_load -k -t 60
    nap 4000
    cut_power
    end_crash_load
    start_machine "dmio.scenario=$scenario"
    check_volume -c 2
    [ "$(random_below 3)" -eq 0 ] || settle "$scenario"
  done
  settle "$scenario"
  echo > "/dev/tcp/127.0.0.1/$(( port + 1 ))"
  end_vm
  kill_remote "${@:4}"
  "same_$scenario"
}

power_cuts $(( (rounds + 1) / 2 )) disks 8M a b c d
power_cuts $(( rounds / 2 )) files 64M a b
