# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""How long recovery and start take, and what clients get meanwhile.

Recovery is timed from the start of a server of a new mirror, of which all
regions but the first lack everything, until dmioctl says that all are in
sync: so the time to start is in it.
"""

import os
import subprocess
import time
from contextlib import ExitStack
from functools import partial

from cases import Aim, Comparison, KiB, Load, nbdkit
from load import measure
from report import progress
from servers import (BLOCK, FILL, Failure, MiB, check_space, child,
                     peak_memory, prepare, private_directory, remove_logs,
                     serve, stop)

GiB = 1024 * MiB
TiB = 1024 * GiB
FILES = ["first.img", "second.img"]
RECOVERY_TIMEOUT = 600


# -------------------------------------------------------------- mirrors

def control(directory):
    return os.path.join(directory, "control")


def start_mirror(stack, options, directory, *parameters, pause=0.05):
    def command(socket):
        return (nbdkit(socket) + [options.plugin, *parameters,
                                  "control=" + control(directory)] + FILES)

    return serve(stack, "dmio", command, directory, pause=pause)


def dmioctl(options, directory, *arguments):
    program = os.path.join(os.path.dirname(options.plugin), "..", "dmioctl")
    run = subprocess.run([program, "-s", control(directory), *arguments],
                         stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, timeout=RECOVERY_TIMEOUT + 10)
    if run.returncode != 0:
        raise Failure("dmioctl %s: %s" % (" ".join(arguments),
                                          run.stderr.strip()))
    return run.stdout


def wait_in_sync(options, directory):
    dmioctl(options, directory, "wait", "--timeout", str(RECOVERY_TIMEOUT))


def recover(options, directory):
    """Seconds until a new mirror is in sync."""
    remove_logs(FILES, directory)
    with ExitStack() as stack:
        begin = time.monotonic()
        server = start_mirror(stack, options, directory, "init=sync",
                              pause=0.01)
        wait_in_sync(options, directory)
        seconds = time.monotonic() - begin
        stop(server)
    return seconds


# ---------------------------------------------------------------- files

def write_random(path, size):
    """Random data, though some of it again and again."""
    data = os.urandom(64 * MiB)
    with open(path, "wb") as f:
        for n in range(size // len(data)):
            f.write(data[n * BLOCK:])
            f.write(data[:n * BLOCK])
        f.flush()
        os.fsync(f.fileno())


def spoil(path, size):
    """A block of each MiB is not what it should be."""
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset in range(0, size, MiB):
            os.pwrite(fd, FILL[:BLOCK], offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def check_equal(directory):
    run = subprocess.run(["cmp", *FILES], cwd=directory, text=True,
                         stdin=subprocess.DEVNULL, capture_output=True,
                         timeout=RECOVERY_TIMEOUT)
    if run.returncode != 0:
        raise Failure("after recovery: %s" % (run.stdout + run.stderr).strip())


def make_sparse(path, size):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(fd, size)
    finally:
        os.close(fd)


def allocated(path):
    return os.stat(path).st_blocks * 512


# ----------------------------------------------- recovery against nbdcopy

FULL = 4 * GiB


def copy_by_nbdcopy(directory):
    begin = time.monotonic()
    with child(["nbdcopy", "--flush", *FILES], directory,
               stderr=subprocess.PIPE, text=True) as process:
        _, err = process.communicate(timeout=RECOVERY_TIMEOUT)
    if process.returncode != 0:
        raise Failure("nbdcopy: " + err.strip())
    return time.monotonic() - begin


def full(parent, name, options, table):
    """All of a region, against a program that only copies."""
    with private_directory(getattr(options, parent)) as directory:
        check_space(directory, 2 * FULL, name)
        progress(name + ": making files")
        first, second = [os.path.join(directory, f) for f in FILES]
        write_random(first, FULL)
        prepare(FILES[1:], FULL, directory)
        speed = {"dmio": [], "nbdcopy": []}
        for n in range(options.brief[0]):
            progress("%s round %d: dmio" % (name, n + 1))
            spoil(second, FULL)
            speed["dmio"].append(FULL / MiB / recover(options, directory))
            progress("%s round %d: comparing" % (name, n + 1))
            check_equal(directory)
            progress("%s round %d: nbdcopy" % (name, n + 1))
            spoil(second, FULL)
            speed["nbdcopy"].append(FULL / MiB / copy_by_nbdcopy(directory))
    progress("")
    table.figures(name, "bandwidth", speed,
                  [Comparison("dmio", "nbdcopy", Aim(">=", 0.8))])


# --------------------------------------------------- recovery when sparse

THIN = TiB
DATA = GiB
PIECE = 64 * KiB


def write_pieces(path):
    """DATA in pieces that are spread all over the file."""
    fd = os.open(path, os.O_WRONLY)
    try:
        for n in range(DATA // PIECE):
            os.pwrite(fd, os.urandom(PIECE), n * (THIN // (DATA // PIECE)))
        os.fsync(fd)
    finally:
        os.close(fd)


def check_pieces(directory):
    """The pieces are equal, and the copy takes no more space."""
    first, second = [os.path.join(directory, f) for f in FILES]
    with open(first, "rb") as a, open(second, "rb") as b:
        for n in range(DATA // PIECE):
            for f in a, b:
                f.seek(n * (THIN // (DATA // PIECE)))
            if a.read(PIECE) != b.read(PIECE):
                raise Failure("after recovery: piece %d differs" % n)
    if allocated(second) > allocated(first) * 1.1:
        raise Failure("after recovery: %d MiB of space, the source has %d MiB"
                      % (allocated(second) // MiB, allocated(first) // MiB))


def thin(parent, name, options, table):
    """A volume that is mostly hole."""
    with private_directory(getattr(options, parent)) as directory:
        check_space(directory, 2 * DATA, name)
        progress(name + ": making files")
        first, second = [os.path.join(directory, f) for f in FILES]
        make_sparse(first, THIN)
        write_pieces(first)
        seconds = []
        for n in range(options.brief[0]):
            progress("%s round %d" % (name, n + 1))
            make_sparse(second, THIN)
            seconds.append(recover(options, directory))
            check_pieces(directory)
    progress("")
    table.figures(name, "seconds", {"dmio": seconds},
                  [Comparison("dmio", aim=Aim("<=", 10))])


# ---------------------------------------------------------------- start

LARGE = 16 * TiB - MiB          # more is too much for ext4


def start_once(options, directory, *parameters):
    """Seconds until the server has answered, and its memory in MiB."""
    with ExitStack() as stack:
        begin = time.monotonic()
        server = start_mirror(stack, options, directory, *parameters,
                              pause=0.01)
        seconds, memory = time.monotonic() - begin, peak_memory(server)
        stop(server)
    return seconds, memory


def start(parent, name, options, table):
    """A clean mirror that is as large as can be, until it has answered."""
    seconds, memory = [], []
    with private_directory(getattr(options, parent)) as directory:
        for file in FILES:
            make_sparse(os.path.join(directory, file), LARGE)
        start_once(options, directory, "init=clean")
        for n in range(options.full[0]):
            progress("%s round %d" % (name, n + 1))
            figures = start_once(options, directory)
            seconds.append(figures[0])
            memory.append(figures[1])
    progress("")
    table.figures(name, "seconds", {"dmio": seconds},
                  [Comparison("dmio", aim=Aim("<=", 1))])
    table.figures(name + " memory", "peak", {"dmio": memory},
                  [Comparison("dmio", aim=Aim("<=", 64))])


# -------------------------------------------------------------- clients

LOADS = [Load("%s-4k-d32" % rw, {"rw": rw, "bs": BLOCK, "iodepth": 32})
         for rw in ("randwrite", "randread")]
LOADS += [Load("%s-256k-d8" % rw, {"rw": rw, "bs": 256 * KiB, "iodepth": 8})
          for rw in ("write", "read")]


def is_recovering(options, directory):
    return '"recovering"' in dmioctl(options, directory, "status", "--json")


def disturb(options, load, directory):
    """Requests a second during a recovery, and after it."""
    seconds = options.full[1]
    remove_logs(FILES, directory)
    with ExitStack() as stack:
        server = start_mirror(stack, options, directory, "init=sync")
        during = measure(server, load.fio, FULL, seconds, directory)
        if not is_recovering(options, directory):
            raise Failure("the recovery had ended before the clients did;"
                          " try fewer --seconds")
        wait_in_sync(options, directory)
        after = measure(server, load.fio, FULL, seconds, directory)
        stop(server)
    return during.iops, after.iops


def clients(parent, name, options, table):
    """What clients get while a region is recovered."""
    with private_directory(getattr(options, parent)) as directory:
        check_space(directory, 2 * FULL, name)
        progress(name + ": making files")
        prepare(FILES, FULL, directory)
        results = {load.name: {"recovering": [], "undisturbed": []}
                   for load in LOADS}
        for n in range(options.brief[0]):
            for load in LOADS:
                progress("%s %s round %d" % (name, load.name, n + 1))
                during, after = disturb(options, load, directory)
                results[load.name]["recovering"].append(during)
                results[load.name]["undisturbed"].append(after)
        progress(name + ": comparing")
        check_equal(directory)
    progress("")
    for load, values in results.items():
        table.figures("%s-%s" % (name, load), "iops", values,
                      [Comparison("recovering", "undisturbed",
                                  Aim(">=", 0.5))])


# (name, function of (name, options, table)).
PARTS = [
    ("recovery-full", partial(full, "dir")),
    ("recovery-full-disk", partial(full, "disk_dir")),
    ("recovery-thin", partial(thin, "dir")),
    ("recovery-thin-disk", partial(thin, "disk_dir")),
    ("recovery-clients", partial(clients, "dir")),
    ("start-16t", partial(start, "dir")),
    ("start-16t-disk", partial(start, "disk_dir")),
]
