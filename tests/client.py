# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
"""Send requests to an NBD server and check its answers.

client.py URI REQUEST...

A request is one argument: OPERATION [OFFSET LENGTH [BYTE]] [ERROR], such as
"write 8192 4096 0x41", "zero,fua 0 512", "flush", "read 0 512 0 EIO".  BYTE is
what a write consists of and what a read must return.  The request must fail
with ERROR, or succeed if none is given.  Flags follow the operation: fua,
no-hole, fast.  All are sent, one after another, even if they could be known to
be wrong.
"""

import errno
import sys

import nbd

FLAGS = {
    "fua": nbd.CMD_FLAG_FUA,
    "no-hole": nbd.CMD_FLAG_NO_HOLE,
    "fast": nbd.CMD_FLAG_FAST_ZERO,
}


class Mismatch(Exception):
    pass


def send(h, operation, flags, numbers):
    offset, length, byte = (numbers + [0, 0, 0])[:3]
    if operation == "read":
        if h.pread(length, offset, flags) != bytes([byte]) * length:
            raise Mismatch
    elif operation == "write":
        h.pwrite(bytes([byte]) * length, offset, flags)
    elif operation == "zero":
        h.zero(length, offset, flags)
    elif operation == "trim":
        h.trim(length, offset, flags)
    elif operation == "cache":
        h.cache(length, offset, flags)
    elif operation == "status":
        h.block_status(length, offset, lambda *args: 0, flags)
    elif operation == "flush":
        h.flush(flags)
    else:
        sys.exit(f"unknown operation {operation}")


def result(h, operation, flags, numbers):
    try:
        send(h, operation, flags, numbers)
    except nbd.Error as e:
        return errno.errorcode[e.errnum or errno.EIO]
    except Mismatch:
        return "other data"
    return "ok"


def run(h, request):
    words = request.split()
    expected = words.pop() if words[-1].startswith("E") else "ok"
    operation, *flags = words.pop(0).split(",")
    got = result(h, operation, sum(FLAGS[name] for name in flags),
                 [int(word, 0) for word in words])
    print(f"{request}: {got}", flush=True)
    if got != expected:
        sys.exit(f"{request}: {got} instead of {expected}")


def main():
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(sys.argv[1])
    for request in sys.argv[2:]:
        run(h, request)
    h.shutdown()


main()
