#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# valgrind's memcheck finds no error in nbdkit with the plugin over a mixture of
# requests, good and bad, and no memory that is lost for good.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires valgrind valgrind
requires_python_nbd
[ -z "$DMIO_PRELOAD" ] || skip "valgrind cannot run a sanitizer's build"
set -x

launcher=(valgrind --quiet --error-exitcode=119 --leak-check=full
          --errors-for-leak-kinds=definite --show-leak-kinds=definite
          --num-callers=20
          --log-file="$tmp/valgrind.log")

# start_dmio and stop_server fail if the server's status is not 0.
make_regions 8M a.img b.img c.img
start_dmio a.img /dev/full b.img c.img,sector=2048,count=8192
client "write 8192 65536 0x41 ENOSPC" "read 8192 65536 0x41" \
       "write 1 511 0x42 EINVAL" "zero 4096 8192 ENOSPC" "trim 0 4096" \
       "flush" "status 0 4194304" "cache 0 65536"
stop_server

start_dmio a.img b.img c.img
client "write 512 512 0x41" "write,fua 4096 1048576 0x42" "zero 8192 4096" \
       "zero,no-hole 16384 65536" "zero,fast 131072 65536" \
       "zero,no-hole,fast 0 512 ENOTSUP" "trim,fua 262144 65536" flush \
       "cache 0 8388608" "status 0 8388608" "read 8192 4096 0" \
       "read 4096 4096 0x42" "read 7 512 0 EINVAL" "status 8388608 512 EINVAL"
bounded "$builddir/client-model" -c 2 -d 8 -t 3 "$uri"
client "write 4194304 65536 0x44"
truncate -s 1M a.img
client "read 4194304 65536 0x44" "write 0 512 0x43 EIO" "flush EIO"
stop_server
same b.img c.img

# Refused before it starts.
for bad in missing.img a.img,sector=x a.img,sector=9999999 b.img; do
  status=0
  bounded "${launcher[@]}" "${nbdkit[@]}" -f -U "$tmp/sock" "$DMIO_PLUGIN" \
    b.img $bad log=none > message.log 2>&1 || status=$?
  [ $status -eq 1 ]
  grep "${bad%%,*}" message.log
done
