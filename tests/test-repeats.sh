#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# A region that goes on failing does not flood the log: a thousand failed writes
# make a few lines, and the counts in them add up to a thousand.  The same holds
# for a client that sends requests which are not in whole blocks.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
set -x

make_regions 4M a.img b.img
start_dmio a.img /dev/full b.img
bounded "$python" - "$uri" <<'PYTHON'
import errno, nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
failed = 0
for i in range(1000):
    try:
        h.pwrite(b"\x55" * 4096, i * 4096)
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        failed += 1
assert failed == 1000, failed
# Another operation is not counted with the writes.
for i in range(7):
    try:
        h.zero(512, i * 512)
    except nbd.Error as e:
        failed += 1
assert failed == 1007, failed
h.shutdown()
PYTHON
stop_server

# What was logged while it ran and when it ended.
sum_up ()
{
  awk -v "what=region 1 (/dev/full): $1 " '
    { i = index($0, what); rest = substr($0, i + length(what)) }
    i && rest ~ /^of [0-9]+ bytes at offset [0-9]+ failed: / { sum += 1 }
    i && rest ~ /^failed [0-9]+ more times / { split(rest, w, " "); sum += w[2] }
    END { print sum + 0 }' "$server_log"
}
[ "$(sum_up write)" -eq 1000 ]
[ "$(sum_up 'write zeroes')" -eq 7 ]
[ "$(wc -l < "$server_log")" -le 30 ]
logged 'more times.*: No space left on device'

# The data is where it should be.
holds a.img 3584 4092416 0x55
same a.img b.img

start_dmio a.img b.img
bounded "$python" - "$uri" <<'PYTHON'
import errno, nbd, sys
h = nbd.NBD()
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_ALIGN)
h.connect_uri(sys.argv[1])
for i in range(1000):
    for request in [lambda: h.pread(100, 0), lambda: h.pwrite(bytes(512), 1)]:
        try:
            request()
        except nbd.Error as e:
            assert e.errnum == errno.EINVAL, e
        else:
            assert False, "not refused"
h.shutdown()
PYTHON
stop_server
unaligned ()
{
  awk -v "op=$1" '
    $0 ~ ": " op " of [0-9]+ bytes .* not in whole blocks of 512 " { sum += 1 }
    $0 ~ ": " op ": [0-9]+ more requests were not in whole blocks" {
      sub(".*: " op ": ", ""); sum += $1 }
    END { print sum + 0 }' "$server_log"
}
[ "$(unaligned read)" -eq 1000 ]
[ "$(unaligned write)" -eq 1000 ]
[ "$(wc -l < "$server_log")" -le 30 ]
