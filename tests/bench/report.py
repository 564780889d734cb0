# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

"""Print the machine, the table and its summary, and draw the plots."""

import os
import platform
import statistics
import subprocess
import sys

from servers import SERVER_TIMEOUT, Failure, file_system, private_directory

HERE = os.path.dirname(os.path.realpath(__file__))
WIDTH = 40                      # of the table's first column
TOP = 12                        # functions listed

# How a figure is printed.
UNITS = {
    "iops": "%.0f/s",
    "bandwidth": "%.0f MiB/s",
    "latency": "%.3f ms",
    "cost": "%.1f us",
    "peak": "%.0f MiB",
    "seconds": "%.2f s",
    "flushes": "%.0f/s",
}


def progress(text):
    if sys.stderr.isatty():
        print("\r\033[K" + text, end="", file=sys.stderr, flush=True)


# -------------------------------------------------------------- machine

def output(*argv):
    try:
        run = subprocess.run(argv, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace",
                             timeout=SERVER_TIMEOUT)
    except OSError as e:
        return [str(e)]
    return run.stdout.splitlines() or ["(no answer)"]


def machine():
    return "%d cores, %s, Linux %s" % (len(os.sched_getaffinity(0)),
                                       cpu_model(), platform.release())


def cpu_model():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def io_uring(options):
    for line in output("nbdkit", "--dump-plugin", options.plugin):
        if line.startswith("dmio_io_uring="):
            return line.partition("=")[2]
    return "no (not in this version)"


def print_machine(options):
    print("machine:  %s, load %.2f" % (machine(), os.getloadavg()[0]))
    print("versions: %s; %s; %s; %s; %s"
          % (output("nbdkit", options.plugin, "--version")[-1],
             output("nbdkit", "--version")[0],
             output("qemu-nbd", "--version")[0],
             output("fio", "--version")[0],
             output("valgrind", "--version")[0]))
    print("io_uring: %s" % io_uring(options))
    print("files:    on %s, those on a disk on %s"
          % (file_system(options.dir), file_system(options.disk_dir)))
    print("run:      %d rounds of %g s for each figure; %d of %g s for plots"
          % (options.rounds, options.seconds, *options.brief))


# ---------------------------------------------------------------- table

class Table:
    """Prints results as they come, and remembers which aims were met."""

    def __init__(self):
        self.aims = []          # (text, met)

    def head(self):
        print()
        print(self.columns("", "median", "spread", "aim"))

    @staticmethod
    def columns(what, median, spread, aim):
        return ("%-*s  %10s  %-20s  %s"
                % (WIDTH, what, median, spread, aim)).rstrip()

    def case(self, group, case, results):
        """results: (load name, peer name) -> Figures of each round."""
        for load in case.loads:
            values = {peer: [getattr(f, case.figure) for f in figures]
                      for (name, peer), figures in results.items()
                      if name == load.name}
            name = " ".join(
                filter(None, ["%s-%s" % (group.name, case.name), load.name]))
            self.figures(name, case.figure, values, case.comparisons)

    def figures(self, name, figure, values, comparisons):
        """values: peer name -> one of each round."""
        print(name)
        for comparison in comparisons:
            self.comparison(name, comparison, values, figure)
        unit = UNITS[figure]
        print("  " + ", ".join(
            "%s %s" % (peer, unit % statistics.median(rounds))
            for peer, rounds in values.items()), flush=True)

    def comparison(self, name, comparison, values, figure):
        rounds = values[comparison.peer]
        what, unit = comparison.peer, UNITS[figure]
        if comparison.over is not None:
            rounds = [a / b for a, b in zip(rounds, values[comparison.over])]
            what, unit = "%s / %s" % (what, comparison.over), "%.2f"
        median = statistics.median(rounds)
        print(self.columns(
            "  " + what, unit % median,
            "%s..%s" % (unit % min(rounds), unit % max(rounds)),
            self.verdict("%s: %s" % (name, what), median, comparison.aim)))

    def verdict(self, what, value, aim):
        if aim is None:
            return ""
        met = value >= aim.bound if aim.sign == ">=" else value <= aim.bound
        self.aims.append((what, met))
        return "%s %g  %s" % (aim.sign, aim.bound, "met" if met else "MISSED")

    def instructions(self, name, counted):
        print(name)
        print("  %.0f in our own code for a 4 KiB write to 2 regions, of %.0f"
              " in the process" % (sum(counted.own.values()), counted.all))
        for function, instructions in counted.own.most_common(TOP):
            print("  %8.0f  %s" % (instructions, function))

    def summary(self):
        if self.aims:
            print("\n%d of %d aims met"
                  % (sum(met for _, met in self.aims), len(self.aims)))
        for what, met in self.aims:
            if not met:
                print("  missed: " + what)


# ---------------------------------------------------------------- plots

def points(plot, case, peers, results):
    """x -> series -> values of each round."""
    table = {}
    for load in case.loads:
        for peer in peers:
            rounds = results[load.name, peer.name]
            row = table.setdefault(plot.x(peer, load), {})
            row[plot.series(peer, load)] = [getattr(figures, plot.y)
                                            for figures in rounds]
    return table


def draw(case, peers, results, options):
    """Write the plot of a case as an SVG file; returns its name."""
    plot = case.plot
    table = points(plot, case, peers, results)
    series = list(next(iter(table.values())))
    file = os.path.join(options.plots, plot.name + ".svg")
    with private_directory(options.dir) as directory:
        data = os.path.join(directory, "data")
        with open(data, "w") as f:
            print("x", "text", *(name + "\t\t" for name in series),
                  sep="\t", file=f)
            for x, row in sorted(table.items()):
                print(x, plot.tick(x),
                      *("%g\t%g\t%g" % (statistics.median(row[name]),
                                        min(row[name]), max(row[name]))
                        for name in series), sep="\t", file=f)
        title = "%s\n%s" % (plot.title, machine())
        run = subprocess.run(
            ["gnuplot", "-c", os.path.join(HERE, "plot.gp"), file, data,
             str(len(series)), title, plot.x_label, plot.y_label],
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if run.returncode != 0:
        raise Failure("gnuplot: %s" % run.stderr.strip())
    return file
