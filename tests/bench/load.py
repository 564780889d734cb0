# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""Load a server with fio's nbd engine, and say how it did."""

import json
import subprocess
from collections import namedtuple

from servers import MiB, check_alive, child, peak_memory, server_failure, uri

FIO_TIMEOUT = 60                # seconds beyond the time it measures

COMMON = {
    "name": "bench",
    "ioengine": "nbd",
    "thread": 1,                # one process: its id is all there is to end
    # Visits each block once a pass, in an order that is the same in each
    # pass, so no two writes in flight ever overlap.  With log=none those
    # could rightly leave the regions different.
    "random_generator": "lfsr",
    "output-format": "json",
}

# requests: how many; iops, bandwidth: of those a second, and of MiB;
# latency: the mean, in ms; cost: time for each, in us; peak: MiB, the most
# memory that the server had since it started.
Figures = namedtuple("Figures", "requests iops bandwidth latency cost peak")


def direction(fio):
    """What fio reports a load under: "read" or "write"."""
    return "write" if "write" in fio["rw"] else "read"


def measure(server, fio, volume, seconds, directory):
    """Load one server, for some seconds if fio has no io_size."""
    settings = dict(COMMON, uri=uri(server.socket), size=volume, **fio)
    if "io_size" not in fio:
        settings.update(time_based=1, runtime="%dms" % round(seconds * 1000))
    argv = ["fio"] + ["--%s=%s" % item for item in settings.items()]
    with child(argv, directory, stdout=subprocess.PIPE,
               stderr=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            out, err = process.communicate(timeout=seconds + FIO_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise server_failure(server, "fio did not end")
    check_alive(server)
    figures = parse(out, fio, peak_memory(server))
    if process.returncode != 0 or figures is None:
        raise server_failure(server, "fio failed, status %d\n%s"
                             % (process.returncode,
                                "\n".join((err or out).splitlines()[:5])))
    return figures


def parse(out, fio, peak):
    """The Figures in what fio printed, None if they are not good."""
    try:
        job = json.loads(out[out.index("{"):])["jobs"][0]
        part = job[direction(fio)]
        requests, iops = part["total_ios"], part["iops"]
        latency = part["clat_ns"]["mean"] / 1e6
    except (ValueError, LookupError):
        return None
    if job["error"] != 0 or not requests or not iops:
        return None
    if requests * fio["bs"] < fio.get("io_size", 0):
        return None
    return Figures(requests, iops, iops * fio["bs"] / MiB, latency,
                   1e6 / iops, peak)
