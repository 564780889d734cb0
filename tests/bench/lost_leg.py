# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""How long a leg is away whose server dies under load and is back at once.

"away": from then until the leg is written again.  "in sync": until it has
all again: its chunks in doubt, too, to which writes of the old connection might
still come, for as long as timeout= says.
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
USED = "recovering", "in sync"
LEAD = 3                        # seconds of load before and after


def state_of(plugin, control):
    """Of the second leg."""
    program = os.path.join(os.path.dirname(plugin), "..", "dmioctl")
    run = subprocess.run([program, "-s", control, "status", "--json"],
                         stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, timeout=PATIENCE, check=True)
    return json.loads(run.stdout)["legs"][1]["state"]


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
    """Seconds until the leg is written again, and until it is in sync."""
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
            wait_for_state(plugin, control, (*AWAY, "recovering"))
            used = wait_for_state(plugin, control, USED)
            in_sync = wait_for_state(plugin, control, ["in sync"])
            load.result()
        stop(mirror)
        stop(leg)
    return used - begin, in_sync - begin


def run(name, options, table):
    plugins = {"now": options.plugin, "before": options.before}
    away = {peer: [] for peer, plugin in plugins.items() if plugin}
    lacking = {peer: [] for peer in away}
    with private_directory(options.dir) as directory:
        check_space(directory, 2 * VOLUME, name)
        for n in range(options.brief[0]):
            for peer in away:
                progress("%s round %d: %s" % (name, n + 1, peer))
                figures = lose(plugins[peer], directory)
                away[peer].append(figures[0])
                lacking[peer].append(figures[1])
    progress("")
    for what, values in ("away", away), ("until in sync", lacking):
        table.figures("%s: %s" % (name, what), "seconds", values,
                      [Comparison(peer) for peer in values])
