# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
"""Listen on a socket and give it to a server.

listen.py ADDRESS NAME COMMAND...

ADDRESS is the path of a unix socket, or HOST:PORT; with port 0 the kernel
chooses a free one, which is written to NAME.port.  The command gets the socket
the way systemd gives it.  With the command "silent" nobody ever answers: what
connects is accepted, and that is all.
"""

import os
import signal
import socket
import sys


def listen(address):
    if "/" in address:
        if os.path.exists(address):
            os.unlink(address)
        s = socket.socket(socket.AF_UNIX)
        s.bind(address)
    else:
        host, port = address.rsplit(":", 1)
        s = socket.socket(socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, int(port)))
    s.listen(100)
    return s


def write(name, number):
    with open(name + ".new", "w") as f:
        print(number, file=f)
    os.rename(name + ".new", name)


def main():
    address, name, *command = sys.argv[1:]
    s = listen(address)
    if "/" not in address:
        write(name + ".port", s.getsockname()[1])
    if command == ["silent"]:
        write(name + ".pid", os.getpid())
        connections = []
        while True:
            connections.append(s.accept())
    os.dup2(s.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(command[0], command)


main()
