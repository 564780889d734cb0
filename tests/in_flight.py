# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
"""Keep requests in flight while something happens to the server's regions.

in_flight.py URI

It reads a word a line and answers with one: "read", "write", "flush" or
"status" sends some requests of that kind, without waiting for them ("sent");
"end" waits until they have ended and checks what they bring ("ended").  What is
wrong ends it with a message.  The volume must begin with 8 blocks of 64 KiB.
"""

import sys
import time

import nbd

COUNT = 8
LENGTH = 65536
SECONDS = 60


class Load:
    def __init__(self, uri):
        self.h = nbd.NBD()
        self.h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        self.h.connect_uri(uri)
        self.content = [bytes([i]) * LENGTH for i in range(COUNT)]
        for i in range(COUNT):
            self.h.pwrite(self.content[i], i * LENGTH)
        self.h.flush()
        self.round = 0
        self.cookies = []
        self.reads = []
        self.extents = []

    def send(self, kind):
        self.round += 1
        for i in range(COUNT):
            getattr(self, kind)(i)

    def read(self, i):
        buf = nbd.Buffer(LENGTH)
        self.reads.append((i, buf))
        self.cookies.append(self.h.aio_pread(buf, i * LENGTH))

    def write(self, i):
        self.content[i] = bytes([(self.round + i) & 0xff]) * LENGTH
        buf = nbd.Buffer.from_bytearray(bytearray(self.content[i]))
        self.cookies.append(self.h.aio_pwrite(buf, i * LENGTH))

    def flush(self, i):
        self.cookies.append(self.h.aio_flush())

    def status(self, i):
        def note(context, offset, entries, error):
            self.extents.append(sum(entries[0::2]))
            return 0
        self.cookies.append(
            self.h.aio_block_status(LENGTH, i * LENGTH, note))

    def end(self):
        until = time.monotonic() + SECONDS
        while self.cookies:
            if time.monotonic() > until:
                sys.exit(f"{len(self.cookies)} requests never end")
            if self.h.aio_command_completed(self.cookies[0]):
                del self.cookies[0]
            else:
                self.h.poll(1000)
        for i, buf in self.reads:
            if buf.to_bytearray() != self.content[i]:
                sys.exit(f"block {i} has other data")
        if any(length < LENGTH for length in self.extents):
            sys.exit("block status says nothing of a part")
        self.reads = []
        self.extents = []


def main():
    load = Load(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            load.end()
            print("ended", flush=True)
        else:
            load.send(word)
            print("sent", flush=True)
    load.h.shutdown()


main()
