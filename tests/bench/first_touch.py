# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""What it costs that chunks become dirty, and what it would cost if they
became clean at once.

Random writes to a volume on a disk, all of whose chunks are clean when they
begin and written to soon after.  Beside the plugin and the same without a
log, a variant is measured that is built for this only: in it a chunk is
clean as soon as no write to it is in flight, as if a dirty bit was for one
write.  That variant does not even flush the regions before, so that
what is measured is the log.

Flushes of the log are counted by a library that is loaded into the servers.
"""

import os
import shutil
import struct
import subprocess
from contextlib import ExitStack

from cases import NEW_LOG, NO_LOG, Comparison, nbdkit
from load import measure
from report import HERE, progress
from servers import (BLOCK, Failure, MiB, check_space, prepare,
                     private_directory, remove_logs, serve, stop)

NAME = "first-touch-disk"
VOLUME = 10 * 1024 * MiB
CHUNK = MiB                     # what the log chooses for such a volume
WRITES = 8 * VOLUME // CHUNK
FILES = ["first.img", "second.img"]
LOAD = {"rw": "randwrite", "bs": BLOCK, "iodepth": 32,
        "io_size": WRITES * BLOCK}
BUILD_TIMEOUT = 300

# (file, what is there, what the variant has instead).
VARIANT = [
    # Idle is whatever no write is in flight to.
    ("lib/dm-log.c",
     "~log->unreconciled[i] & ~log->touched[i] &", "~log->unreconciled[i] &"),
    ("lib/mirror-threads.c",
     "#define CUSTODIAN_NSEC (2 * NSEC_PER_SEC)",
     "#define CUSTODIAN_NSEC (NSEC_PER_SEC / 10000)"),
    # No flush, and no stamp.
    ("lib/mirror-threads.c",
     "  if (mirror_flush_legs (m, legs) == 0 && mirror_unflushed (m) == 0 &&\n"
     "      mirror_stamp (m))\n", "  (void) legs;\n"),
]

# Counts, in a file that is mapped, the flushes of copies of the log.
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t *count;
static int (*real) (int);

__attribute__ ((__constructor__)) static void
start (void)
{
  int fd = open (getenv ("DMIO_BENCH_COUNT"), O_RDWR);

  real = (int (*) (int)) dlsym (RTLD_NEXT, "fdatasync");
  count = mmap (NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                0);
  if (count == MAP_FAILED)
    abort ();
  close (fd);
}

int
fdatasync (int fd)
{
  static const char end[] = ".dmlog";
  char link[64], name[4096];
  ssize_t n;

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink (link, name, sizeof name);
  if (n >= (ssize_t) sizeof end - 1 &&
      memcmp (name + n - (sizeof end - 1), end, sizeof end - 1) == 0)
    __atomic_add_fetch (count, 1, __ATOMIC_RELAXED);
  return real (fd);
}
"""


# ------------------------------------------------------------- building

def run_tool(*argv):
    run = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                         capture_output=True, timeout=BUILD_TIMEOUT)
    if run.returncode != 0:
        raise Failure("%s failed:\n%s" % (argv[0], run.stderr.strip()))
    return run.stdout


def build_counter(directory):
    source = os.path.join(directory, "counter.c")
    library = os.path.join(directory, "counter.so")
    with open(source, "w") as f:
        f.write(COUNTER)
    run_tool("cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl")
    return library


def change(tree, name, old, new):
    path = os.path.join(tree, name)
    with open(path) as f:
        text = f.read()
    if text.count(old) != 1:
        raise Failure("%s: %s: not there once, as the variant needs it: %s"
                      % (NAME, name, old.strip()))
    with open(path, "w") as f:
        f.write(text.replace(old, new))


def build_variant(options, directory):
    """The plugin from changed sources, compiled as the real one."""
    tree = os.path.join(directory, "variant")
    top = os.path.join(HERE, "..", "..")
    for part in ("lib", "plugin"):
        shutil.copytree(os.path.join(top, part), os.path.join(tree, part),
                        ignore=shutil.ignore_patterns(".*", "*.o", "*.lo"))
    for each in VARIANT:
        change(tree, *each)
    # Beside the plugin that was built, wherever that is.
    config = os.path.join(os.path.dirname(options.plugin), "..", "..")
    if not os.path.exists(os.path.join(config, "config.h")):
        raise Failure("%s: no config.h where the plugin was built" % NAME)
    sources = [os.path.join(tree, part, name)
               for part in ("lib", "plugin")
               for name in sorted(os.listdir(os.path.join(tree, part)))
               if name.endswith(".c") and not name.startswith("dmioctl")]
    flags = run_tool("pkg-config", "--cflags", "--libs", "glib-2.0",
                     "jsonrpc-glib-1.0", "libnbd", "liburing", "nbdkit")
    plugin = os.path.join(directory, "nbdkit-dmio-plugin.so")
    run_tool("cc", "-std=gnu11", "-O2", "-g", "-pthread", "-shared", "-fPIC",
             "-DHAVE_CONFIG_H", '-DG_LOG_DOMAIN="dmio"', "-I" + config,
             "-I" + os.path.join(tree, "lib"), "-o", plugin, *sources,
             *flags.split(), "-lm", "-Wl,-z,nodelete",
             "-Wl,--version-script="
             + os.path.join(tree, "plugin", "plugin.map"))
    return plugin


# ------------------------------------------------------------ measuring

def read_count(path):
    with open(path, "rb") as f:
        return struct.unpack("Q", f.read(8))[0]


def measure_once(name, plugin, log, counter, directory):
    """Writes a second, and flushes of the log."""
    counts = os.path.join(directory, "count")
    with open(counts, "wb") as f:
        f.write(bytes(8))
    remove_logs(FILES, directory)

    def command(socket):
        return (["env", "LD_PRELOAD=" + counter, "DMIO_BENCH_COUNT=" + counts]
                + nbdkit(socket) + [plugin, log] + FILES)

    with ExitStack() as stack:
        server = serve(stack, name, command, directory)
        before = read_count(counts)
        figures = measure(server, LOAD, VOLUME, 0, directory)
        flushes = (read_count(counts) - before) / len(FILES)
        stop(server)
    return figures.iops, flushes * figures.iops / figures.requests


def run(name, options, table):
    with private_directory(options.disk_dir) as directory:
        check_space(directory, VOLUME * len(FILES), name)
        progress(name + ": building")
        counter = build_counter(directory)
        variants = {
            "with log": (options.plugin, NEW_LOG),
            "cleaned at once": (build_variant(options, directory), NEW_LOG),
            "without": (options.plugin, NO_LOG),
        }
        progress(name + ": making files")
        prepare(FILES, VOLUME, directory)
        iops = {peer: [] for peer in variants}
        flushes = {peer: [] for peer in variants}
        for n in range(options.brief[0]):
            for peer, (plugin, log) in variants.items():
                progress("%s round %d: %s" % (name, n + 1, peer))
                figures = measure_once(peer, plugin, log, counter, directory)
                iops[peer].append(figures[0])
                flushes[peer].append(figures[1])
    progress("")
    table.figures(name + "-4k-d32", "iops", iops,
                  [Comparison("with log", "cleaned at once"),
                   Comparison("with log", "without"),
                   Comparison("cleaned at once", "without")])
    table.figures(name + " flushes of the log", "flushes", flushes, [])
