# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash

# Which Debian packages are needed for what, and how to install those
# that are missing.  Sourced by quickstart.sh and tests/run.sh.

# To build.
# shellcheck disable=SC2034
packages_build=(autoconf automake gcc libc6-dev libglib2.0-dev
                libjson-glib-dev libjsonrpc-glib-1.0-dev libnbd-dev
                liburing-dev libtool make nbdkit nbdkit-plugin-dev perl
                pkg-config)

# To see it at work in quickstart.sh.
# shellcheck disable=SC2034
packages_clients=(libnbd-bin qemu-utils)

# To run the tests, beside these.
# shellcheck disable=SC2034
packages_tests=(e2fsprogs fio fuse3 git gnutls-bin iproute2 jq mount nbd-client
                python3 python3-libnbd strace valgrind)

# To run tests in virtual machines, too, and on another release.
# shellcheck disable=SC2034
packages_machines=(busybox-static cpio debootstrap guestfish kmod
                   linux-image-cloud-amd64 qemu-system-x86)

# Install those of the packages that are missing, as root or with sudo.
install_packages ()
{
  local package missing=() sudo=()

  for package; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
      grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  if [ "$(id -u)" -ne 0 ]; then
    if ! type -p sudo >/dev/null; then
      echo "error: these packages are missing; as root, run:" >&2
      echo "  apt-get install ${missing[*]}" >&2
      return 1
    fi
    sudo=(sudo)
  fi
  echo "Installing ${missing[*]} ..."
  "${sudo[@]}" apt-get update -q=2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q=2 -y --no-install-recommends "${missing[@]}" \
    >/dev/null
}
