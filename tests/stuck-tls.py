# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
"""An NBD server that agrees to TLS and then makes no progress.

stuck-tls.py PIDFILE LOG silent|slow

It takes its socket from listen.py.  After STARTTLS it adds a line to LOG, and
says nothing more, or is in the middle of a long record, of which it sends a
byte from time to time.
"""

import os
import socket
import struct
import sys
import threading
import time

OPTION_REPLY, STARTTLS, ACK, UNSUPPORTED = 0x3e889045565a9, 5, 1, 0x80000001


def receive(connection, length):
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise ConnectionError
    return data


def shake_hands(connection):
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    receive(connection, 4)
    option = None
    while option != STARTTLS:
        _, option, length = struct.unpack(">QII", receive(connection, 16))
        if length > 0:
            receive(connection, length)
        reply = ACK if option == STARTTLS else UNSUPPORTED
        connection.sendall(struct.pack(">QIII", OPTION_REPLY, option, reply, 0))


def serve(connection, slow):
    try:
        shake_hands(connection)
        with open(sys.argv[2], "a") as f:
            print("stuck", file=f)
        if slow:
            # A handshake record of 16000 bytes, with a ServerHello.
            connection.sendall(struct.pack(">BHHBBH", 22, 0x303, 16000, 2, 0,
                                           15996))
        while slow:
            connection.sendall(b"\3")
            time.sleep(0.05)
        time.sleep(1000)
    except OSError:
        pass


def main():
    listener = socket.socket(fileno=3)
    with open(sys.argv[1], "w") as f:
        print(os.getpid(), file=f)
    while True:
        threading.Thread(target=serve, daemon=True,
                         args=(listener.accept()[0], sys.argv[3] == "slow")
                         ).start()


main()
