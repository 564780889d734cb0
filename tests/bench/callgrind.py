# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""Count the instructions of a 4 KiB write, and say which functions run them.

A server with two regions in memory runs under valgrind twice, with N writes
and with 2 N; the difference is N writes and nothing else.  This does not
depend on what else the machine does.
"""

import os
from collections import Counter, namedtuple
from contextlib import ExitStack

from cases import Peer, dmio
from load import measure
from servers import (BLOCK, Failure, MiB, prepare, private_directory, serve,
                     stop)

NAME = "instructions"
WRITES = 2000
VOLUME = 16 * MiB

# For each write; own: function name -> those in the plugin; all: those of the
# whole process.
Instructions = namedtuple("Instructions", "own all")


def count(options):
    """The Instructions of a write."""
    once, twice = run(options, WRITES), run(options, 2 * WRITES)
    own, others = Counter(), 0
    for (binary, function), instructions in twice.items():
        difference = (instructions - once[binary, function]) / WRITES
        if binary == options.plugin:
            own[function] = difference
        else:
            others += difference
    if not own:
        raise Failure("%s: callgrind saw no instruction in %s"
                      % (NAME, options.plugin))
    return Instructions(own, sum(own.values()) + others)


def run(options, writes):
    """(binary, function) -> instructions, in a run with some writes."""
    peer = Peer("dmio under valgrind", 2, dmio())
    with private_directory(options.dir) as directory, ExitStack() as stack:
        profile = os.path.join(directory, "profile")

        def command(socket):
            return (["valgrind", "--tool=callgrind", "--compress-strings=no",
                     "--compress-pos=no", "--callgrind-out-file=" + profile]
                    + peer.command(options, socket, peer.files))

        prepare(peer.files, VOLUME, directory)
        server = serve(stack, peer.name, command, directory)
        measure(server, {"rw": "randwrite", "bs": BLOCK, "iodepth": 1,
                         "io_size": writes * BLOCK}, VOLUME, 0, directory)
        stop(server)
        with open(profile) as lines:
            return parse(lines)


def parse(lines):
    """Add up a profile; see 'Callgrind Format Specification' of valgrind."""
    instructions = Counter()
    binary = function = None
    called = False              # the next cost is what a called function ran
    for line in lines:
        key, equals, value = line.rstrip("\n").partition("=")
        if equals and key == "ob":
            binary = value
        elif equals and key == "fn":
            function = value
        elif equals and key == "calls":
            called = True
        elif line[0].isdigit():
            if not called:
                instructions[binary, function] += int(line.split()[-1])
            called = False
    return instructions
