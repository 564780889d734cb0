# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the tests with a virtual machine share; sourced after functions.sh.  This
# machine's kernel may lack what they need, so Debian's cloud kernel runs in an
# emulated one (TCG).  What it does is in the script init beside this one.

requires qemu-system-x86_64 qemu-system-x86
requires busybox busybox-static
requires nbd-client nbd-client
requires mkfs.ext4 e2fsprogs
requires fstrim util-linux
requires modprobe kmod
requires cpio cpio
for applet in insmod ip nc poweroff usleep; do
  busybox --list | grep -x $applet > /dev/null ||
    skip "busybox has no $applet, install busybox-static"
done
kernel=$(find /boot -name 'vmlinuz-*-cloud-amd64' -readable |
           sort -V | tail -n 1)
version=${kernel#*/vmlinuz-}
[ -e "/lib/modules/$version/modules.dep" ] ||
  skip "no readable kernel with modules, install linux-image-cloud-amd64"

# build_vm FILE...: its file system; see build-initramfs.sh.
build_vm ()
{
  "$srcdir/vm/build-initramfs.sh" initramfs.cpio.gz "$version" "$@"
}

vm_pid=
kill_vm ()
{
  [ -n "$vm_pid" ] || return 0
  kill -KILL "$vm_pid" 2> /dev/null || true
  wait "$vm_pid" || true
  vm_pid=
}
at_exit kill_vm

# start_vm NETDEV PARAMETERS ARGUMENT...: PARAMETERS are for init, arguments for
# qemu.  What the machine says is in guest.log.  A kernel that panics reboots at
# once, which ends qemu.
start_vm ()
{
  local append="console=ttyS0 loglevel=1 panic=-1 mitigations=off nokaslr"

  rm -f guest.log
  setpriv --pdeathsig KILL \
    qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 512 -no-reboot \
      -nodefaults -no-user-config -display none -serial file:guest.log \
      -netdev "$1" -device virtio-net-pci,netdev=net,romfile= \
      -kernel "$kernel" -initrd initramfs.cpio.gz -append "$append $2" \
      "${@:3}" < /dev/null &
  vm_pid=$!
}

vm_has_said ()
{
  has_ended "$vm_pid" || grep -q "^GUEST: $1" guest.log 2> /dev/null
}

# A machine without hardware to help it is slow.
# shellcheck disable=SC2034
patience=600

# wait_vm LINE: until it says so.
wait_vm ()
{
  wait_for vm_has_said "$1" && grep "^GUEST: $1" guest.log
}

# end_vm: until it switches itself off, all being well.
end_vm ()
{
  wait_for has_ended "$vm_pid" || die "the machine does not end"
  wait "$vm_pid"
  vm_pid=
  grep '^GUEST: success' guest.log
}
