#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdkit loads the plugin, and --dump-plugin and --help say what it is: its
# name, its version, its magic key and every parameter.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
set -x

bounded "${nbdkit[@]}" "$DMIO_PLUGIN" --dump-plugin > dump.log
for line in '^path=.*/nbdkit-dmio-plugin\.so$' \
            '^name=dmio$' \
            '^version=[0-9]' \
            '^magic_config_key=region$' \
            '^max_thread_model=parallel$' \
            '^thread_model=parallel$' \
            '^dmio_version=[0-9]' '^dmio_max_regions=64$' '^dmio_logs=none file block-device nbd$' \
            '^dmio_control=json-rpc$' \
            '^dmio_regions=file block-device nbd$' \
            '^dmio_io_uring=(yes|no \(.+\))$'; do
  grep -E "$line" dump.log
done
for callback in pread pwrite flush trim zero extents cache block_size \
                can_fua can_multi_conn can_fast_zero is_rotational \
                list_exports export_description; do
  grep "^has_$callback=1\$" dump.log
done

# Where io_uring is forbidden, that is said, with the reason.
if [ -z "$DMIO_PRELOAD" ]; then
  echo 'int io_uring_queue_init_params (unsigned n, void *ring, void *params)
        { return -1; }' |
    ${CC:-gcc} -shared -fPIC -x c -o forbidden.so -
  LD_PRELOAD=$tmp/forbidden.so \
    bounded nbdkit "$DMIO_PLUGIN" --dump-plugin > forbidden.log
  grep -x 'dmio_io_uring=no (Operation not permitted)' forbidden.log
fi

# The library is linked in, not left to chance.
if command -v ldd > /dev/null; then
  ldd "$DMIO_PLUGIN" > ldd.log
  ! grep 'not found' ldd.log || die "unresolved libraries"
fi

bounded "${nbdkit[@]}" "$DMIO_PLUGIN" --help > help.log
for word in 'region=' 'init=clean' 'init=sync' 'log=SPEC' 'log=none' \
            'chunk=' 'degraded=yes' 'quorum=' 'resync-rate=' 'control=' \
            'read=balance' 'read=first' 'timeout=' \
            ',sector=' ',count=' ',direct=on|off' ',write-mostly' \
            'NBD URI'; do
  grep -F -- "$word" help.log
done
