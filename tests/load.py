# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
"""A load on an NBD server whose regions may fail meanwhile.

load.py URI SECONDS [OPTION=VALUE]...
load.py make FILE SIZE

The second makes a region, filled with what the first expects.  The options:

kind=write    changes, flushes and reads (the default)
kind=read     reads
errors=EIO    changes and flushes may fail, with this error
latency=S     no request may take longer
regions=A,B   files that must hold, in the end, what the volume does
fill=no       the volume has not been made with "make": write to it first

On 2 connections 8 requests each are in flight, for blocks of 16 KiB.  Only one
change of a block is in flight at a time, and no read beside it, so what may be
read is known: what was acknowledged, or one of what was there before and all
that failed since; and once read, that stays.  Reads must not fail.

It says "running" when the load has begun, and prints a summary.
"""

import errno
import os
import random
import select
import struct
import sys
import time

import nbd

BLOCK = 16384
CONNECTIONS, DEPTH = 2, 8

options = {"kind": "write", "errors": "", "latency": "5", "regions": "",
           "fill": "yes"}


def content(value):
    return struct.pack("=Q", value) * (BLOCK // 8)


def value_of(data):
    value = struct.unpack_from("=Q", data)[0]
    if data != content(value):
        sys.exit(f"a mixture of {value:#x} and something else")
    return value


class Load:
    def __init__(self, uri, seconds):
        self.handles = []
        for _ in range(CONNECTIONS):
            h = nbd.NBD()
            h.connect_uri(uri)
            self.handles.append(h)
        self.in_flight = [0] * CONNECTIONS
        self.blocks = self.handles[0].get_size() // BLOCK
        if options["fill"] == "yes":
            self.possible = [{i + 1} for i in range(self.blocks)]
        else:
            self.possible = [{0} for i in range(self.blocks)]
            self.handles[0].zero(self.blocks * BLOCK, 0)
        self.readers = [0] * self.blocks
        self.changing = [False] * self.blocks
        self.next_value = 1 << 32
        self.done = {}
        self.slowest = 0
        self.started = False
        self.end = time.monotonic() + seconds

    def choose(self):
        kind = "read"
        if options["kind"] == "write":
            kind = random.choices(
                ["read", "write", "fua", "zero", "trim", "flush"],
                [30, 50, 5, 5, 5, 5])[0]
        while True:
            block = random.randrange(self.blocks)
            if not self.changing[block] and \
               (kind == "read" or not self.readers[block]):
                return kind, block

    def submit(self, i):
        h = self.handles[i]
        kind, block = self.choose()
        offset = block * BLOCK
        value = None
        if kind in ("write", "fua"):
            value = self.next_value
            self.next_value += 1
        elif kind in ("zero", "trim"):
            value = 0
        buffer = nbd.Buffer(BLOCK) if kind == "read" else \
            nbd.Buffer.from_bytearray(bytearray(content(value or 0)))
        begin = time.monotonic()

        def completed(error):
            self.completed(i, kind, block, value, buffer, begin, error.value)
            return 1

        if kind == "read":
            self.readers[block] += 1
            h.aio_pread(buffer, offset, completion=completed)
        elif kind == "flush":
            h.aio_flush(completion=completed)
        else:
            self.changing[block] = True
            if kind == "zero":
                h.aio_zero(BLOCK, offset, completion=completed)
            elif kind == "trim":
                h.aio_trim(BLOCK, offset, completion=completed)
            else:
                h.aio_pwrite(buffer, offset, completion=completed,
                             flags=nbd.CMD_FLAG_FUA if kind == "fua" else 0)
        self.in_flight[i] += 1

    def completed(self, i, kind, block, value, buffer, begin, error):
        # An exception would get lost here.
        try:
            self.account(kind, begin, error)
            if kind == "read":
                self.readers[block] -= 1
                self.check(block, value_of(buffer.to_bytearray()), "read")
            elif kind != "flush":
                self.changing[block] = False
                if error or kind == "trim":
                    self.possible[block].add(value)
                else:
                    self.possible[block] = {value}
            self.in_flight[i] -= 1
        except SystemExit as e:
            self.give_up(e)
        except Exception as e:
            self.give_up(repr(e))

    @staticmethod
    def give_up(message):
        print(message, flush=True)
        os._exit(1)

    def account(self, kind, begin, error):
        seconds = time.monotonic() - begin
        self.slowest = max(self.slowest, seconds)
        name = errno.errorcode[error] if error else "ok"
        self.done[kind, name] = self.done.get((kind, name), 0) + 1
        if error and self.done[kind, name] == 1:
            print(f"{kind}: {name} after {seconds:.3f} s", flush=True)
        if error and (kind == "read" or name != options["errors"]):
            sys.exit(f"{kind} must not fail with {name}")
        if seconds > float(options["latency"]):
            sys.exit(f"{kind} took {seconds:.3f} s")

    def check(self, block, value, where):
        if value not in self.possible[block]:
            sys.exit(f"{where}: block {block} is {value:#x}, and not one of "
                     f"{[hex(v) for v in self.possible[block]]}")
        self.possible[block] = {value}

    def step(self):
        poll = select.poll()
        for i, h in enumerate(self.handles):
            if not self.in_flight[i]:
                continue
            direction = h.aio_get_direction()
            events = 0
            if direction & nbd.AIO_DIRECTION_READ:
                events |= select.POLLIN
            if direction & nbd.AIO_DIRECTION_WRITE:
                events |= select.POLLOUT
            poll.register(h.aio_get_fd(), events)
        latency = float(options["latency"])
        ready = dict(poll.poll(latency * 1000 + 1000))
        if not ready:
            sys.exit(f"no answer to {self.in_flight} requests: it hangs")
        for h in self.handles:
            events = ready.get(h.aio_get_fd(), 0)
            direction = h.aio_get_direction()
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) \
               and direction & nbd.AIO_DIRECTION_READ:
                h.aio_notify_read()
            elif events & select.POLLOUT and \
                    direction & nbd.AIO_DIRECTION_WRITE:
                h.aio_notify_write()

    def run(self):
        while True:
            more = time.monotonic() < self.end
            for i in range(CONNECTIONS):
                while more and self.in_flight[i] < DEPTH:
                    self.submit(i)
            if not any(self.in_flight):
                break
            self.step()
            if not self.started and sum(self.done.values()) > 100:
                print("running", flush=True)
                self.started = True

    def read_all(self):
        for block in range(self.blocks):
            data = self.handles[0].pread(BLOCK, block * BLOCK)
            self.check(block, value_of(data), "in the end")
        for name in filter(None, options["regions"].split(",")):
            with open(name, "rb") as f:
                for block in range(self.blocks):
                    self.check(block, value_of(f.read(BLOCK)), name)

    def summary(self):
        for (kind, name), n in sorted(self.done.items()):
            print(f"{kind} {name}: {n}")
        print(f"slowest: {self.slowest:.3f} s")


def make(name, size):
    with open(name, "wb") as f:
        for block in range(int(size) // BLOCK):
            f.write(content(block + 1))


def main():
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
        return
    for option in sys.argv[3:]:
        key, value = option.split("=", 1)
        if key not in options:
            sys.exit(f"unknown option {option}")
        options[key] = value
    load = Load(sys.argv[1], float(sys.argv[2]))
    load.run()
    load.read_all()
    load.summary()
    for h in load.handles:
        h.shutdown()


main()
