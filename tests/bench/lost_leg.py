# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""How long a leg is away whose server dies under load and is back at once.

"away": from then until the leg is written again.  "read": until it is read, too, but for
its chunks in doubt, to which writes of the old connection might still come.  "in sync":
until it has these as well, which takes as long as timeout= says.
"""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from cases import Comparison, delaying, nbdkit, uri
from load import measure
from report import progress
from servers import (BLOCK, Failure, MiB, check_space, prepare,
                     private_directory, remove_logs, serve, stop)

NAME = "lost-leg"
VOLUME = 256 * MiB
FILES = ["first.img", "second.img"]
LOAD = {"rw": "randwrite", "bs": BLOCK, "iodepth": 32}
SLOW = delaying("wdelay=5ms")          # so that writes are in flight when it dies
PATIENCE = 120                  # seconds
AWAY = "failed", "out of sync"
RECOVERING = "recovering"
IN_SYNC = "in sync"
PARTIAL = "in sync in part"     # not a state: the reason says so
LEAD = 3                        # seconds of load before and after
FIGURES = "away", "until read", "until in sync"


def state_of(plugin, control):
    """Of the second leg."""
    program = os.path.join(os.path.dirname(plugin), "..", "dmioctl")
    run = subprocess.run([program, "-s", control, "status", "--json"],
                         stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, timeout=PATIENCE, check=True)
    leg = json.loads(run.stdout)["legs"][1]
    in_part = (leg["reason"] or "").startswith("it is used, but for chunks")
    return PARTIAL if in_part else leg["state"]


def wait_for_state(plugin, control, states):
    end = time.monotonic() + PATIENCE
    while state_of(plugin, control) not in states:
        if time.monotonic() > end:
            raise Failure("the leg is not %s after %d seconds"
                          % (" or ".join(states), PATIENCE))
        time.sleep(0.01)
    return time.monotonic()


def kill_and_serve(stack, server, directory):
    server.process.kill()
    server.process.wait()
    begin = time.monotonic()
    server = serve(stack, server.name,
                   lambda socket: SLOW(socket, FILES[1]), directory,
                   pause=0.01)
    return begin, server


def lose(plugin, directory):
    """Seconds until the leg is written again, read again, and in sync."""
    control = os.path.join(directory, "control")
    prepare(FILES, VOLUME, directory)
    remove_logs(FILES, directory)
    with ExitStack() as stack:
        leg = serve(stack, "server of the leg",
                    lambda socket: SLOW(socket, FILES[1]), directory)
        mirror = serve(stack, "dmio", lambda socket: nbdkit(socket) + [
            plugin, "init=clean", "control=" + control, FILES[0],
            uri(leg.socket)], directory)
        with ThreadPoolExecutor(1) as threads:
            load = threads.submit(measure, mirror, LOAD, VOLUME, 2 * LEAD,
                                  directory)
            time.sleep(LEAD)
            begin, leg = kill_and_serve(stack, leg, directory)
            wait_for_state(plugin, control, (*AWAY, RECOVERING, PARTIAL))
            times = [wait_for_state(plugin, control, states) for states in
                     ([RECOVERING, PARTIAL, IN_SYNC], [PARTIAL, IN_SYNC],
                      [IN_SYNC])]
            load.result()
        stop(mirror)
        stop(leg)
    return [at - begin for at in times]


def run(name, options, table):
    plugins = {"now": options.plugin, "before": options.before}
    peers = [peer for peer, plugin in plugins.items() if plugin]
    figures = [{peer: [] for peer in peers} for _ in FIGURES]
    with private_directory(options.dir) as directory:
        check_space(directory, 2 * VOLUME, name)
        for n in range(options.brief[0]):
            for peer in peers:
                progress("%s round %d: %s" % (name, n + 1, peer))
                for values, seconds in zip(figures,
                                           lose(plugins[peer], directory)):
                    values[peer].append(seconds)
    progress("")
    for what, values in zip(FIGURES, figures):
        table.figures("%s: %s" % (name, what), "seconds", values,
                      [Comparison(peer) for peer in values])
