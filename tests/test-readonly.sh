#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdkit -r: the volume is read-only for the client, and the regions are not
# changed and need not be writable.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires_python_nbd
requires nbdcopy libnbd-bin
set -x

random_file image 1M
cp image a.img
cp image b.img
start_dmio -r a.img b.img
nbdinfo --is read-only "$uri"
bounded nbdcopy "$uri" - | cmp image -
bounded "$python" - "$uri" <<'PYTHON'
import errno, nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
assert h.is_read_only()
for function, args in ((h.pwrite, (bytes(512), 0)), (h.zero, (512, 0)),
                       (h.trim, (512, 0))):
    try:
        function(*args)
    except nbd.Error as e:
        assert e.errnum in (errno.EPERM, errno.EINVAL), e
    else:
        raise AssertionError("not refused")
h.shutdown()
PYTHON
stop_server
same image a.img b.img

# Files that cannot be written.  Root can write them anyway, unless it gives up
# that privilege.
chmod 0444 a.img b.img
if is_root; then
  launcher=(setpriv --bounding-set -dac_override)
fi
start_dmio -r a.img b.img
bounded nbdcopy "$uri" - | cmp image -
stop_server

# Without -r, when no region can be written, the volume is read-only as well.
start_dmio a.img b.img
nbdinfo --is read-only "$uri"
bounded nbdcopy "$uri" - | cmp image -
stop_server

# One writable region makes it writable: then the write fails, see
# test-failing-region.sh.
chmod 0644 b.img
start_dmio a.img b.img
! nbdinfo --is read-only "$uri" || die "read-only with a writable region"
logged 'a\.img.*read-only|read-only.*a\.img'
not_logged 'b\.img.*read-only|read-only.*b\.img'
stop_server
same image a.img b.img
