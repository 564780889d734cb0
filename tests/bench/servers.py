# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""Start, watch and stop servers, and look at the files they leave.

Whatever is started or made here belongs to a context manager, which ends or
removes it on every way out.  SIGINT, SIGTERM and SIGHUP are a way out, too,
once exit_on_signals() was called.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from contextlib import contextmanager
from urllib.parse import quote

MiB = 1024 * 1024
BLOCK = 4096
FILL = b"\xd3" * MiB            # what files hold before they are measured
SERVER_TIMEOUT = 30             # seconds, to start and to stop a server
SUN_PATH_MAX = 107              # longest path of a Unix socket

# A server while it runs.  log: its stderr.  behind: the servers that it is a
# client of.
Server = namedtuple("Server", "name process socket log behind")


class Failure(Exception):
    """What was measured is not valid; the message says why."""


# -------------------------------------------------------------- signals

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
holders = 0                     # how many held() are active
caught = None                   # the number of the first signal


def exit_on_signals():
    for number in SIGNALS:
        signal.signal(number, on_signal)


def on_signal(number, frame):
    global caught
    if caught is not None:
        return                  # nothing interrupts the end
    caught = number
    if not holders:
        sys.exit(128 + number)


@contextmanager
def held():
    """No signal ends the program before this does."""
    global holders
    holders += 1
    try:
        yield
    finally:
        holders -= 1
        if caught is not None and not holders:
            sys.exit(128 + caught)


# --------------------------------------------- directories and processes

@contextmanager
def private_directory(parent):
    directory = None
    try:
        with held():
            directory = os.path.realpath(
                tempfile.mkdtemp(prefix="dmio-bench.", dir=parent))
        yield directory
    finally:
        with held():
            if directory is not None:
                shutil.rmtree(directory)


@contextmanager
def child(argv, directory, **streams):
    """A process, ended at the latest when the context is left."""
    process = None
    try:
        with held():
            process = subprocess.Popen(argv, cwd=directory,
                                       stdin=subprocess.DEVNULL, **streams)
        yield process
    finally:
        with held():
            if process is not None and process.poll() is None:
                end(process)


def end(process):
    """Ask a process to end; True if it needed no more than that."""
    process.terminate()
    try:
        process.wait(SERVER_TIMEOUT)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


# -------------------------------------------------------------- servers

def uri(socket):
    return "nbd+unix:///?socket=" + quote(socket)


def serve(stack, name, command, directory, behind=(), pause=0.05):
    """Start a server and wait until it answers.

    stack: the ExitStack that ends it.
    command: a function of its socket that gives its command line.
    pause: seconds before it is asked again.
    """
    stem = os.path.join(directory, name.replace(" ", "-"))
    socket = stem + ".sock"
    if len(os.fsencode(socket)) > SUN_PATH_MAX:
        raise Failure("%s: path too long for a socket" % socket)
    if os.path.exists(socket):
        os.unlink(socket)       # of a server that has ended
    with open(stem + ".log", "wb") as log:
        process = stack.enter_context(
            child(command(socket), directory, stdout=log, stderr=log))
    server = Server(name, process, socket, stem + ".log", behind)
    wait_until_served(server, pause)
    return server


def wait_until_served(server, pause):
    deadline = time.monotonic() + SERVER_TIMEOUT
    while not os.path.exists(server.socket) or volume_size(server) is None:
        check_alive(server)
        if time.monotonic() > deadline:
            raise server_failure(server, "not ready after %d seconds"
                                 % SERVER_TIMEOUT)
        time.sleep(pause)


def volume_size(server):
    """The size served, None if there is no answer (yet)."""
    try:
        info = subprocess.run(["nbdinfo", "--size", uri(server.socket)],
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=SERVER_TIMEOUT)
    except subprocess.TimeoutExpired:
        return None
    return int(info.stdout) if info.returncode == 0 else None


def messages(server):
    with open(server.log, errors="replace") as log:
        return log.read()[-2000:].strip()


def server_failure(server, what):
    return Failure("%s: %s\n%s" % (server.name, what, messages(server)
                                   or "(it printed nothing)"))


def check_alive(server):
    status = server.process.poll()
    if status is not None:
        raise server_failure(server, "ended with status %d" % status)


def peak_memory(server):
    """The most memory that the process ever had at once, in MiB."""
    with open("/proc/%d/status" % server.process.pid) as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise server_failure(server, "no VmHWM in its status")


def stop(server):
    """End a server in good order, then those behind it."""
    check_alive(server)
    if not end(server.process):
        raise server_failure(server, "did not end on SIGTERM")
    if server.process.returncode != 0:
        raise server_failure(server, "ended with status %d"
                             % server.process.returncode)
    for each in server.behind:
        stop(each)


# ---------------------------------------------------------------- files

def check_space(directory, needed, what):
    """There is space, also if it is made of memory."""
    free = shutil.disk_usage(directory).free
    if file_system(directory) == "tmpfs":
        free = min(free, available_memory())
    if free < needed:
        raise Failure("%s: %s: %d MiB needed, %d MiB free"
                      % (directory, what, needed // MiB, free // MiB))


def file_system(directory):
    run = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", directory],
                         stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, timeout=SERVER_TIMEOUT)
    return (run.stdout.splitlines() or ["unknown"])[0]


def available_memory():
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise Failure("/proc/meminfo: no MemAvailable")


def prepare(files, volume, directory):
    """Write each file in full, so that nothing measures allocation."""
    for name in files:
        with open(os.path.join(directory, name), "wb") as f:
            for _ in range(volume // len(FILL)):
                f.write(FILL)
            f.flush()
            os.fsync(f.fileno())        # nor write-back


def remove_logs(files, directory):
    """So that a mirror of these files can begin anew."""
    for name in files:
        path = os.path.join(directory, name + ".dmlog")
        if os.path.exists(path):
            os.unlink(path)


def changed_blocks(name, files, volume, directory):
    """How many blocks hold new data; fails if the files are not alike."""
    changed = 0
    opened = []
    try:
        for each in files:
            opened.append(open(os.path.join(directory, each), "rb"))
        for offset in range(0, volume, len(FILL)):
            first, *others = [f.read(len(FILL)) for f in opened]
            if len(first) != len(FILL) or any(d != first for d in others):
                raise Failure("%s: its files differ in the MiB at %d"
                              % (name, offset))
            if first != FILL:
                changed += sum(first[at:at + BLOCK] != FILL[:BLOCK]
                               and any(first[at:at + BLOCK])
                               for at in range(0, len(FILL), BLOCK))
    finally:
        for f in opened:
            f.close()
    return changed
