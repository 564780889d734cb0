#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# What 'make install' puts into place can be used: the header has the
# contract to the letter, programs link with what pkg-config says, the
# library exports that and nothing else, nbdkit finds the plugin, dmioctl runs,
# and the man pages are there.  No .la file is among it, and after
# 'make uninstall' no file at all.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires make make
requires gcc gcc
requires pkg-config pkg-config
set -x

bounded make -C "$builddir/.." install DESTDIR="$tmp/root" > install.log 2>&1

pc=$(find root -name libdmio.pc)
export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$tmp/root
read -r -a flags <<< "$(pkg-config --cflags --libs libdmio)"
# The library is as sanitized as the rest of the build.
cc=(gcc -std=c99 -pedantic -Wall -Wextra -Werror)
if [ -n "${DMIO_SANITIZER_CFLAGS:-}" ]; then
  read -r -a sanitizer <<< "${DMIO_SANITIZER_CFLAGS:-}"
  cc+=("${sanitizer[@]}")
fi
libdir=$(dirname "$(find "$tmp/root" -name libdmio.so)")
export LD_LIBRARY_PATH=$libdir

"${cc[@]}" "$srcdir/contract.c" "${flags[@]}" -o contract
"${no_aslr[@]}" ./contract

"${cc[@]}" "$srcdir/../examples/mirror-three-files.c" "${flags[@]}" -o mirror
truncate -s 4096 a.img b.img
if "${no_aslr[@]}" ./mirror a.img b.img /dev/full > out; then
  die "/dev/full was not full"
fi
grep -x 'failed regions: 0x4' out
same a.img b.img
grep ddddd a.img

# Only what dm-io.h declares.
nm -D --defined-only "$libdir/libdmio.so" | sed -n 's/.* T //p' |
  sed 's/@.*//' | sort > exported
grep -o -E '\bdm_(io|bdev)[a-z_]* \(' "$srcdir/../lib/dm-io.h" |
  tr -d ' (' | sort -u > declared
cat exported declared
same exported declared

dmioctl=$(find "$tmp/root" -name dmioctl -type f)
"${no_aslr[@]}" "$dmioctl" --version | grep -E '^dmioctl [0-9]'

plugin=$(find "$tmp/root" -name nbdkit-dmio-plugin.so)
"${nbdkit[@]}" "$plugin" --dump-plugin | grep -x 'name=dmio'
nm -D --defined-only "$plugin" | sed 's/.* //' | sort | paste -sd' ' > symbols
grep -x 'dmio_debug_io plugin_init' symbols

for page in man1/dmioctl.1 man1/nbdkit-dmio-plugin.1 man3/dm_io.3 \
            man3/libdmio.3 man5/dmio-log.5; do
  [ -s "$(find root -path "*/$page")" ]
done

la=$(find root -name '*.la')
[ -z "$la" ] || die "installed: $la"
bounded make -C "$builddir/.." uninstall DESTDIR="$tmp/root" > uninstall.log 2>&1
left=$(find root ! -type d)
[ -z "$left" ] || die "left by make uninstall: $left"
