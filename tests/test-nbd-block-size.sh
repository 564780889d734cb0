#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The block sizes of NBD servers: the largest minimum is that of the volume,
# requests are split to each server's maximum, and regions keep to the
# minimum.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 128M a.img b.img
# The server refuses whatever does not keep to its sizes.
start_remote a nbdkit --filter=blocksize-policy file "$tmp/a.img" \
             blocksize-minimum=4096 blocksize-preferred=8192 \
             blocksize-maximum=65536 blocksize-error-policy=error
start_remote b nbdkit --filter=blocksize-policy file "$tmp/b.img" \
             blocksize-minimum=1024 blocksize-preferred=4096 \
             blocksize-maximum=1M blocksize-error-policy=error
start_dmio "${remote_uri[a]}" "${remote_uri[b]}" timeout=60
bounded "$python" - "$uri" <<'PYTHON'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
assert h.get_block_size(nbd.SIZE_MINIMUM) == 4096
assert h.get_block_size(nbd.SIZE_PREFERRED) >= 4096
assert h.get_block_size(nbd.SIZE_MAXIMUM) >= 32 << 20
h.shutdown()
PYTHON
client "write 0 67108864 0x31" "read 0 67108864 0x31" "read 0 67108864 0x31" \
       "write,fua 4096 135168 0x32" "read 0 4096 0x31" \
       "read 4096 135168 0x32" "read 139264 4096 0x31" \
       "zero 8192 69632" "trim 33554432 33554432" flush \
       "zero 67108864 67108864" "status 0 134217728" \
       "read 8192 69632" "read 77824 4096 0x32" \
       "write 512 512 0x33 EINVAL" "read 4608 4096 0 EINVAL" \
       "zero 4096 1024 EINVAL" "trim 1024 4096 EINVAL" "read 0 4096 0x31"
logged 'of 512 bytes at offset 512 .*4096.*--filter=blocksize'
not_logged 'region.*failed'
stop_server_within 2
same a.img b.img

# The remedy which the message names.
start_dmio --filter=blocksize "${remote_uri[a]}" "${remote_uri[b]}"
client "write 512 512 0x34" "read 512 512 0x34" "read 0 512 0x31"
stop_server
same a.img b.img

# Parts of a region: whole blocks of it.
refused 2 "${remote_uri[a]##*/}" 'multiple.*4096|4096.*multiple|block' \
        "${remote_uri[a]},sector=9"
refused 2 "${remote_uri[a]##*/}" 'multiple.*4096|4096.*multiple|block' \
        "${remote_uri[a]},count=9"
start_dmio "${remote_uri[a]},sector=8,count=16" "${remote_uri[b]},sector=2"
nbdinfo --size "$uri" | grep -x 8192
client "write 0 8192 0x35" "read 0 8192 0x35"
stop_server
holds a.img 4096 8192 0x35
holds b.img 1024 8192 0x35

# The volume ends with a whole block of all its regions.
kill_remote b
truncate -s $(( (1 << 20) + 2048 )) b.img
start_remote b nbdkit file "$tmp/b.img"
start_dmio "${remote_uri[a]}" "${remote_uri[b]}"
nbdinfo --size "$uri" | grep -x 1048576
client "write 1044480 4096 0x36" "read 1044480 4096 0x36"
stop_server
holds a.img 1044480 4096 0x36
holds b.img 1044480 4096 0x36

# Blocks that are too large.
start_remote c nbdkit --filter=blocksize-policy memory 1M \
             blocksize-minimum=64K blocksize-preferred=64K
refused 2 "${remote_uri[c]##*/}" 'block size' "${remote_uri[c]}"
