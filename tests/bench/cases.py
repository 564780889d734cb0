# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""What is measured: the servers, what they are loaded with, and the aims."""

from collections import namedtuple
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from servers import BLOCK, MiB, uri

KiB = 1024

# -------------------------------------------------------- what they are

# sign: ">=" or "<=".
Aim = namedtuple("Aim", "sign bound")


@dataclass(frozen=True)
class Peer:
    """A server with a volume of its own.

    command: a function of (options, socket, regions) that gives its command
      line; it has to stay in the foreground.
    behind: None, and the regions are files, in the directory in which servers
      are started; or a function of (socket, file) that gives the command line
      of an NBD server for one file, and the regions are their sockets.
    """
    name: str
    regions: int
    command: Callable
    behind: Optional[Callable] = None

    @property
    def files(self):
        return ["%s-%d.img" % (self.name.replace(" ", "-"), i)
                for i in range(self.regions)]


# fio: its options, beside those of all loads.
Load = namedtuple("Load", "name fio")


@dataclass(frozen=True)
class Comparison:
    """A figure of a peer, or its ratio to another peer's."""
    peer: str
    over: Optional[str] = None
    aim: Optional[Aim] = None


@dataclass(frozen=True)
class Plot:
    """A picture of a case.

    x, series: functions of (peer, load): where a figure belongs.
    y: which of the Figures.
    tick: text for a value of x.
    """
    name: str
    title: str
    x_label: str
    y_label: str
    x: Callable
    series: Callable
    y: str = "iops"
    tick: Callable = str


@dataclass(frozen=True)
class Case:
    """Loads for peers of a group, all of them in each round.

    peers: names; an empty list means all of the group.
    figure: which of the Figures counts.
    warm_up: fio's options for what comes before each measurement.
    brief: fewer and shorter measurements will do.
    once: one round, as the figure cannot change with the next.
    """
    name: str
    loads: list
    peers: list = field(default_factory=list)
    figure: str = "iops"
    comparisons: list = field(default_factory=list)
    plot: Optional[Plot] = None
    warm_up: Optional[dict] = None
    brief: bool = False
    once: bool = False


@dataclass(frozen=True)
class Group:
    """Peers that are up at the same time, and their cases.

    on_disk: whether the files are on the disk and not in memory.
    """
    name: str
    volume: int
    peers: list
    cases: list
    on_disk: bool = False


# -------------------------------------------------------------- servers

def nbdkit(socket, threads=None):
    return (["nbdkit", "-f", "--exit-with-parent", "-U", socket]
            + (["-t", str(threads)] if threads else []))


def same(region):
    return region


def direct(region):
    return region + ",direct=on"


NO_LOG = "log=none"
NEW_LOG = "init=clean"          # copies of it are made beside the regions


def dmio(spec=same, threads=None, log=NO_LOG, before=False):
    """spec: a function that makes a region's SPEC of its name.
    before: the plugin that --before names.
    """
    def command(options, socket, regions):
        plugin = options.before if before else options.plugin
        return (nbdkit(socket, threads) + [plugin, log]
                + ["region=" + spec(region) for region in regions])
    return command


def one_copy(options, socket, regions):
    return file_server(socket, *regions)


def proxy(options, socket, regions):
    return nbdkit(socket) + ["nbd"] + ["socket=" + each for each in regions]


IN_FILE = ["driver=file", "filename=%s"]
ON_SERVER = ["driver=nbd", "server.type=unix", "server.path=%s"]


def quorum(child, *arguments):
    """child: qemu's options for a region, with %s for its name."""
    def command(options, socket, regions):
        # quorum sends a write to all children, whatever the threshold, and
        # answers when the last has ended; the threshold says how many must
        # have succeeded.  All of them: that is what dmio promises with
        # log=none.  Reads in fifo order come from the first child; the
        # default would read all and compare, which dmio does not do.
        image = [
            "driver=quorum",
            "vote-threshold=%d" % len(regions),
            "read-pattern=fifo",
        ]
        for i, region in enumerate(regions):
            name = region.replace(",", ",,")
            image.append("children.%d.driver=raw" % i)
            image += ["children.%d.file.%s" % (i, option.replace("%s", name))
                      for option in child]
        # As nbdkit does: any number of clients, one after another or at once.
        return ["qemu-nbd", "--persistent", "--shared=0",
                "--socket=" + socket, *arguments,
                "--image-opts", ",".join(image)]
    return command


def file_server(socket, file):
    return nbdkit(socket) + ["file", file]


def delaying(delay):
    """An NBD server that is slow, and limited by that.

    nbdkit has 16 threads for each connection.  The client must not open more
    than one, so a server that takes 2 ms for a request answers no more than
    8000 a second.  That leaves processor time for a second one, on two cores
    too; with more connections, processors would be the limit of both.
    """
    def command(socket, file):
        return (nbdkit(socket)
                + ["--filter=multi-conn", "--filter=delay", "file", file,
                   "multi-conn-mode=disable", delay])
    return command


# ---------------------------------------------------------------- cases

def at_least(bound):
    return Aim(">=", bound)


def at_most(bound):
    return Aim("<=", bound)


def make_load(rw, bs, depth, name=""):
    return Load(name, {"rw": rw, "bs": bs, "iodepth": depth})


def random_4k(rw, depth, *comparisons, **details):
    return Case("%s-4k-d%d" % (rw, depth), [make_load(rw, BLOCK, depth)],
                comparisons=comparisons, **details)


def sequential(rw, *comparisons):
    return Case("%s-256k-d8" % rw, [make_load(rw, 256 * KiB, 8)],
                comparisons=comparisons)


def peer_name(peer, load):
    return peer.name


def plural(regions):
    return "%d region%s" % (regions, "" if regions == 1 else "s")


def kib(number):
    return "%d KiB" % (number // KiB)


DEPTH_PLOT = Plot(
    "depth", "Random 4 KiB writes, 2 regions on tmpfs",
    "requests in flight", "writes a second",
    x=lambda peer, load: load.fio["iodepth"], series=peer_name)

BLOCK_SIZE_PLOT = Plot(
    "block-size", "Sequential writes, 8 in flight, 2 regions on tmpfs",
    "size of a request", "MiB a second",
    x=lambda peer, load: load.fio["bs"], series=peer_name,
    y="bandwidth", tick=kib)

REGIONS_PLOT = Plot(
    "regions", "Random 4 KiB writes to files on tmpfs",
    "regions", "writes a second",
    x=lambda peer, load: peer.regions, series=lambda peer, load: load.name)

TMPFS = Group(
    "tmpfs", 256 * MiB,
    [Peer("dmio", 2, dmio()),
     Peer("one copy", 1, one_copy),
     Peer("quorum", 2, quorum(IN_FILE))],
    [random_4k("randwrite", 32,
               Comparison("dmio", "one copy", at_least(0.85)),
               Comparison("dmio", "quorum", at_least(5))),
     random_4k("randwrite", 1,
               Comparison("dmio", "one copy", at_least(0.97)),
               peers=["dmio", "one copy"]),
     random_4k("randread", 1,
               Comparison("dmio", "one copy", at_least(0.97)),
               peers=["dmio", "one copy"]),
     random_4k("randread", 32,
               Comparison("dmio", "one copy", at_least(0.95)),
               peers=["dmio", "one copy"]),
     sequential("write",
                Comparison("dmio", "one copy", at_least(0.8)),
                Comparison("dmio", "quorum", at_least(4))),
     sequential("read",
                Comparison("dmio", "one copy"),
                Comparison("dmio", "quorum")),
     Case("depth",
          [make_load("randwrite", BLOCK, depth, "depth %d" % depth)
           for depth in (1, 2, 4, 8, 16, 32, 64)],
          plot=DEPTH_PLOT, brief=True),
     Case("block-size",
          [make_load("write", size * KiB, 8, "%d KiB" % size)
           for size in (4, 16, 64, 256, 1024)],
          figure="bandwidth", plot=BLOCK_SIZE_PLOT, brief=True)])


def log(name, bound=None, on_disk=False):
    """What the log costs when all of the volume is dirty: nothing is written
    to it then.
    """
    volume = 256 * MiB
    aim = None if bound is None else at_least(bound)
    everything = {"rw": "write", "bs": MiB, "iodepth": 8, "io_size": volume}
    return Group(
        name, volume,
        [Peer("with log", 2, dmio(log=NEW_LOG)),
         Peer("without", 2, dmio())],
        [random_4k("randwrite", depth, Comparison("with log", "without", aim),
                   warm_up=everything)
         for depth in (32, 1)],
        on_disk)


# Beside an earlier build of the plugin; only with --before.
BEFORE = replace(
    log("before"),
    peers=[Peer("now", 2, dmio(log=NEW_LOG)),
           Peer("before", 2, dmio(log=NEW_LOG, before=True))],
    cases=[replace(case, comparisons=[Comparison("now", "before",
                                                 at_least(1))])
           for case in log("before").cases])

# Each write of each region goes to the same disk.
DIRECT = Group(
    "direct", 128 * MiB,
    [Peer("1 region", 1, dmio(direct)),
     Peer("2 regions", 2, dmio(direct)),
     Peer("3 regions", 3, dmio(direct)),
     Peer("quorum", 2, quorum(IN_FILE, "--cache=none"))],
    [random_4k("randwrite", 1,
               Comparison("2 regions", "1 region", at_most(1.15)),
               Comparison("3 regions", "1 region", at_most(1.35)),
               peers=["1 region", "2 regions", "3 regions"],
               figure="latency"),
     random_4k("randwrite", 32,
               Comparison("2 regions", "quorum", at_least(1.5)),
               peers=["2 regions", "quorum"])],
    on_disk=True)

# Each has servers of its own, so that each can be checked.
NBD = Group(
    "nbd", 64 * MiB,
    [Peer("dmio", 2, dmio(uri), file_server),
     Peer("proxy", 1, proxy, file_server),
     Peer("quorum", 2, quorum(ON_SERVER), file_server)],
    [random_4k("randwrite", 32,
               Comparison("dmio", "proxy", at_least(0.9)),
               Comparison("dmio", "quorum", at_least(1.5)))])

WRITE_DELAY = delaying("wdelay=5ms")
NBD_SLOW_WRITES = Group(
    "nbd-5ms-writes", 64 * MiB,
    [Peer("3 regions", 3, dmio(uri), WRITE_DELAY),
     Peer("one server", 1,
          lambda options, socket, files: WRITE_DELAY(socket, *files))],
    [random_4k("randwrite", 1,
               Comparison("3 regions", aim=at_most(5.7)),
               figure="latency")])

NBD_SLOW_READS = Group(
    "nbd-2ms-reads", 64 * MiB,
    [Peer("1 region", 1, dmio(uri, 64), delaying("rdelay=2ms")),
     Peer("2 regions", 2, dmio(uri, 64), delaying("rdelay=2ms"))],
    [random_4k("randread", 64,
               Comparison("2 regions", "1 region", at_least(1.8)))])

# Twice as many regions cost at most twice as much, if the cost is linear.
REGIONS = Group(
    "regions", 16 * MiB,
    [Peer(plural(n), n, dmio()) for n in (1, 2, 4, 8, 16, 32, 64)],
    [Case("randwrite-4k",
          [make_load("randwrite", BLOCK, depth, "depth %d" % depth)
           for depth in (1, 32)],
          figure="cost",
          comparisons=[Comparison("64 regions", "32 regions", at_most(2))],
          plot=REGIONS_PLOT, brief=True)])


def memory(name, spec=same, behind=None, on_disk=False):
    """The most memory of a server that gets 32 requests of 32 MiB.

    Each of nbdkit's threads keeps a buffer as large as the largest request
    it ever received, and it has 16 for a connection, however few requests
    are in flight: one copy shows what comes from that alone, and 4 threads
    what is left without.
    """
    return Group(
        "memory-" + name, 128 * MiB,
        [Peer("dmio", 3, dmio(spec), behind),
         Peer("dmio 4 threads", 3, dmio(spec, 4), behind),
         Peer("one copy", 1, one_copy)],
        [Case("write-32m-d4",
              [Load("", {"rw": "write", "bs": 32 * MiB, "iodepth": 4,
                         "io_size": 1024 * MiB})],
              figure="peak",
              comparisons=[Comparison("dmio", aim=at_most(512)),
                           Comparison("dmio 4 threads", aim=at_most(512))],
              once=True)],
        on_disk)


GROUPS = [
    TMPFS, log("log", 0.95), log("log-disk", on_disk=True), DIRECT, NBD,
    NBD_SLOW_WRITES, NBD_SLOW_READS, REGIONS,
    memory("files"), memory("direct", direct, on_disk=True),
    memory("nbd", uri, file_server), BEFORE,
]
