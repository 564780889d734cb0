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
            '^dmio_version=[0-9]' '^dmio_max_regions=64$' '^dmio_logs=none$'; do
  grep -E "$line" dump.log
done
for callback in pread pwrite flush trim zero extents cache block_size \
                can_fua can_multi_conn can_fast_zero is_rotational \
                list_exports export_description; do
  grep "^has_$callback=1\$" dump.log
done

# The library is linked in, not left to chance.
if command -v ldd > /dev/null; then
  ldd "$DMIO_PLUGIN" > ldd.log
  ! grep 'not found' ldd.log || die "unresolved libraries"
fi

bounded "${nbdkit[@]}" "$DMIO_PLUGIN" --help > help.log
for word in 'region=' 'log=none' 'sector=' 'count='; do
  grep -F -- "$word" help.log
done
