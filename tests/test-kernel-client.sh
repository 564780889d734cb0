#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The Linux kernel's own NBD client works on a mirror.  This machine's kernel
# may have no nbd module, so Debian's cloud kernel runs in an emulated virtual
# machine (TCG) and reaches the server through qemu's user network.
#
# Scenario work: ext4 is made on the volume, filled, trimmed and checked;
# afterwards the regions are the same, hold the file system, and were trimmed.
#
# Scenario fail: one region lies on a file system that runs full.  The kernel
# reports I/O errors, not a hang, and the other region keeps the data.
#
# What the machine does is in vm/init.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=vm/functions.sh
. "$srcdir/vm/functions.sh"
set -x

build_vm

is_ready ()
{
  ! has_ended "$server_pid" || return 0
  [ -s server.pid ] &&
    nbdinfo --can connect "nbd://127.0.0.1:$port" > /dev/null 2>&1
}

# start_tcp REGION...: like start_dmio, but on a TCP port, for the kernel's
# client has nothing else here.  Somebody may take the port before: then try
# another.  Ports below 32768 are not those of outgoing connections.
start_tcp ()
{
  server_log=$tmp/server.log
  for _ in $(seq 20); do
    port=$(shuf -n 1 -i 20000-32000)
    rm -f server.pid requests.log
    "${launcher[@]}" "${nbdkit[@]}" -f --exit-with-parent \
      -i 127.0.0.1 -p "$port" -P server.pid --filter=log "$DMIO_PLUGIN" \
      log=none "logfile=$tmp/requests.log" "$@" \
      < /dev/null > "$server_log" 2>&1 &
    server_pid=$!
    servers+=("$server_pid")
    wait_for is_ready
    has_ended "$server_pid" || return 0
    forget_server "$server_pid"
    logged 'Address already in use' || break
  done
  die "the server did not start"
}

# The server has answered all that it was asked.
all_is_answered ()
{
  [ "$(grep -c '\.\.\.$' requests.log)" -eq \
    "$(grep -cE ' \.\.\.[A-Z]' requests.log)" ]
}

# run_vm SCENARIO: a kernel that panics reboots at once, which ends qemu.  The
# emulated machine has hung twice on busy hosts, in its first flush, and why is not
# known.  If that happens again and the server owes no answer, it is started once more;
# if the server does, the test fails.
run_vm ()
{
  local n
  for n in 1 2 3; do
    start_vm user,id=net "dmio.scenario=$1 dmio.host=10.0.2.2 dmio.port=$port"
    if end_vm; then
      sed 's/\r//' guest.log > guest
      return
    fi
    grep '^GUEST: hang' guest.log || break
    if ! all_is_answered; then
      head -n 100 /proc/"$server_pid"/task/*/wchan
      break
    fi
    echo "the server has answered everything: once more"
    sed 's/\r//' guest.log
  done
  die "scenario $1 fails"
}

#-----------------------------------------------------------------------
# work

make_regions 128M a.img b.img
start_tcp a.img b.img
run_vm work
not_logged 'failed'
stop_server

same a.img b.img
sed -n 's/^GUEST: sum //p' guest > sums
grep ' big$' sums
for region in a.img b.img; do
  e2fsck -f -n "$region"
  mkdir "$region.files"
  debugfs -R "rdump / $region.files" "$region"
  (cd "$region.files" && sha256sum --quiet -c ../sums)
  # Of the 32 MiB that were written 24 were trimmed.
  [ "$(( $(stat -c '%b * %B' "$region") ))" -lt $(( 24 << 20 )) ]
done

#-----------------------------------------------------------------------
# fail: the mount is in a namespace of the server's and goes away with it.

own_mounts=(unshare -m)
is_root || own_mounts+=(-r)
"${own_mounts[@]}" true ||
  skip "scenario fail only: this machine allows no mount namespace"
# shellcheck disable=SC2016
launcher=("${own_mounts[@]}" sh -c '
  mount -t tmpfs -o size=16m dmio-test full &&
  truncate -s 64M full/b.img &&
  exec "$@"' sh)

mkdir full
make_regions 64M a.img
start_tcp a.img full/b.img
run_vm fail
logged 'region 1 \(.*full/b\.img\): write of .* failed: No space left on device'
not_logged 'region 0 .*failed'
stop_server

sum=$(sed -n 's/^GUEST: sum //p' guest)
[ "$(head -c 4M a.img | sha256sum)" = "$sum" ]
