#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# usage: build-initramfs.sh OUTPUT.cpio.gz KERNEL-VERSION [FILE...]
#
# Build the file system of the virtual machine of some tests: the script init
# beside this one, a few programs of this machine, the files (programs and
# plugins), which go to /bin, the shared libraries of them all, and the modules
# of the kernel that will boot.  Needs no root.

set -e -u -o pipefail

output=$1
kver=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

programs="busybox nbd-client mkfs.ext4 e2fsck fstrim"
modules="virtio_pci virtio_net virtio_blk nbd"

root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT
mkdir "$root"/{applets,bin,dev,mnt,modules,proc,sys,tmp}

# The libraries keep their full names, which the dynamic linker knows.
libraries ()
{
  # ldd fails for a static program.
  { ldd "$1" || :; } 2> /dev/null |
    sed -n -E 's,^([^/]*=> )?[[:space:]]*(/[^ ]+) \(.*,\2,p'
}

for p in $programs "$@"; do
  p=$(command -v "$p" || realpath -e "$p")
  cp -L "$p" "$root/bin"
  libraries "$p"
done | sort -u | while read -r lib; do
  cp -L --parents "$lib" "$root"
done

# insmod needs them in this order; what is built into the kernel has no file.
for m in $modules; do
  modprobe -S "$kver" --show-depends "$m"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
while read -r ko; do
  name=$(basename "${ko%%.ko*}")
  case $ko in
    *.ko) cp "$ko" "$root/modules/$name.ko" ;;
    *.ko.xz) xz -dc "$ko" > "$root/modules/$name.ko" ;;
    *) echo "$0: $ko: unknown compression" >&2; exit 1 ;;
  esac
  echo "$name" >> "$root/modules/order"
done

mkdir "$root/etc"
cp /etc/mke2fs.conf "$root/etc"
install -m 0755 "$here/init" "$root/init"

(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 > "$output"
