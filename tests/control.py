# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# What a client of the control socket should not send: SOCKET is the argument.
# After each message the server has to answer others still.

import json
import os
import random
import socket
import sys

path = sys.argv[1]


class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_body(self, body, header=""):
        if isinstance(body, str):
            body = body.encode()
        self.send(f"Content-Length: {len(body)}\r\n{header}\r\n".encode() +
                  body)

    def receive(self):
        """The next message, or None if the connection has ended."""
        length = 0
        try:
            for line in self.file:
                name, _, value = line.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
                elif line == b"\r\n":
                    return json.loads(self.file.read(length))
        except ConnectionResetError:
            pass
        return None

    def ask(self, body):
        self.send_body(body if isinstance(body, (str, bytes)) else
                       json.dumps(body))
        return self.receive()


def request(**members):
    return {"jsonrpc": "2.0", "id": 7, "method": "status", "params": {},
            **members}


def without(key):
    return {k: v for k, v in request().items() if k != key}


def still_answers():
    with Connection() as c:
        answer = c.ask(request(id="ä"))
        assert answer["id"] == "ä" and answer["jsonrpc"] == "2.0", answer
        assert answer["result"]["degraded"] is False, answer


def check_error(body, code, answered_id, or_code=None):
    print("error", code, str(body)[:60])
    with Connection() as c:
        answer = c.ask(body)
        assert answer["error"]["code"] in (code, or_code), answer
        assert answer["error"]["message"] != "", answer
        assert answer["id"] == answered_id, answer
        assert "result" not in answer, answer
        # This connection is still good.
        assert "result" in c.ask(request()), answer
    still_answers()


def check_ended(data):
    print("ended", data[:60])
    with Connection() as c:
        try:
            c.send(data)
            c.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = c.receive()
        assert answer is None, answer
    still_answers()


def check_ignored(body):
    print("ignored", str(body)[:60])
    with Connection() as c:
        c.send_body(json.dumps(body))
        assert "result" in c.ask(request(id=8))
    still_answers()


PARSE_ERROR, INVALID_REQUEST = -32700, -32600
NO_SUCH_METHOD, INVALID_PARAMS = -32601, -32602

# Right.
still_answers()
with Connection() as c:
    assert c.ask(request())["id"] == 7
    assert c.ask(without("params"))["id"] == 7
    assert c.ask(request(id=1.5))["id"] == 1.5
    assert c.ask(request(extra=[1, {"a": None}]))["id"] == 7
    assert c.ask(request(method="wait"))["result"]["to_reconcile"] == 0
    assert c.ask(request(method="wait", params={"timeout": 5}))["id"] == 7
    # Several at once.
    for i in range(100):
        c.send_body(json.dumps(request(id=i)))
    assert {c.receive()["id"] for i in range(100)} == set(range(100))
# One that has nothing more to ask.
with Connection() as c:
    c.send_body(json.dumps(request()))
    c.socket.shutdown(socket.SHUT_WR)
    assert c.receive()["id"] == 7
    assert c.receive() is None
# One byte after another.
with Connection() as c:
    body = json.dumps(request())
    for byte in f"Content-Length: {len(body)}\r\n\r\n{body}".encode():
        c.send(bytes([byte]))
    assert c.receive()["id"] == 7

# No JSON, or nothing that is a request.
for body in "{", "x", "{}}", '{"a":}', b"\xff\xfe", b"{\0}", '"\\u12"':
    check_error(body, PARSE_ERROR, None)
for body in "{}", "[]", "1", "null", '"status"', "true", \
        json.dumps([request(), request()]):
    check_error(body, INVALID_REQUEST, None)
# Newer parsers stop at some depth.
check_error("[" * 5000 + "]" * 5000, INVALID_REQUEST, None, PARSE_ERROR)
for body in without("jsonrpc"), without("method"), request(jsonrpc="1.0"), \
        request(jsonrpc=2.0), request(method=3), request(method=None):
    check_error(body, INVALID_REQUEST, 7)
for body in request(id=None), request(id=[]), request(id={}), \
        request(id=True), json.dumps(request(id=0.5)).replace("0.5", "1e999"):
    check_error(body, INVALID_REQUEST, None)
for method in "", "Status", "status ", "__init__", "x" * 10000:
    check_error(request(method=method), NO_SUCH_METHOD, 7)
for params in [], [1], None, 1, "x":
    check_error(request(params=params), INVALID_PARAMS, 7)
for timeout in -1, "1", None, [], True, -1.5:
    check_error(request(method="wait", params={"timeout": timeout}),
                INVALID_PARAMS, 7)

# A character that cannot be sent back, and half a one.
for half in r'"\u001f"', r'"\ud800"', r'"\udc00\ud800"', r'"\ud800\u0041"':
    for body in '{"jsonrpc": "2.0", "id": %s, "method": "status"}', \
            '{"jsonrpc": "2.0", "id": 7, "method": %s}', \
            '{"jsonrpc": "2.0", "id": 7, "method": "status", %s: 1}', \
            '{"jsonrpc": "2.0", "id": 7, "method": "fail", ' \
            '"params": {"leg": [%s]}}':
        check_error(body % half, PARSE_ERROR, None)

# Messages with a few mistakes: there is an answer, or the connection ends.
random.seed(1)
right = json.dumps(request(params={"leg": "ä", "timeout": 1.5}),
                   ensure_ascii=False).encode()
pieces = b"{", b"[", b'"', rb"\u0000", rb"\ud800", b"\xc3", b"1e999", b"null", b"-"
for i in range(2000):
    body = bytearray(right)
    for j in range(random.randrange(1, 4)):
        at = random.randrange(len(body))
        body[at:at + random.randrange(2)] = random.choice(
            [*pieces, bytes([random.randrange(256)])])
    with Connection() as c:
        c.send_body(bytes(body))
        c.socket.shutdown(socket.SHUT_WR)
        c.receive()
still_answers()

# Without an id nothing is answered.
for body in without("id"), {"jsonrpc": "2.0", "method": "status"}, \
        {"jsonrpc": "2.0", "method": "fail", "params": {"leg": 0}}:
    check_ignored(body)

# Wrong headers, and what ends too early.
for data in b"", b"\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", \
        b"Content-Length: 0\r\n\r\n", b"Content-Length: -5\r\n\r\n{}", \
        b"Content-Length: 99999999999999999999\r\n\r\n{}", \
        b"Content-Length: 100000000\r\n\r\n{}", b"Content-Length: x\r\n\r\n", \
        b"Content-Length: 10\r\n\r\n{}", b"Content-Le", os.urandom(4096), \
        b"\xff" * 4096 + b"\n", b"Content-Length: 2", b"x" * 100000, \
        b"Content-Length: 100000\r\n\r\n" + b"[" * 100000:
    check_ended(data)

# The other encoding that the library knows.
for kind in "a{sv}", "s", "v", "ai", "(":
    print("gvariant", kind)
    with Connection() as c:
        c.send_body(os.urandom(64), "Content-Type: application/gvariant\r\n"
                    f"X-GVariant-Type: {kind}\r\n")
        c.socket.shutdown(socket.SHUT_WR)
        c.receive()
    still_answers()

# Who hangs up without reading the answers, or asks for many and reads none.
for i in range(50):
    with Connection() as c:
        c.send_body(json.dumps(request(method="wait")))
with Connection() as c:
    c.socket.settimeout(1)
    try:
        for i in range(20000):
            c.send_body(json.dumps(request()))
    except (TimeoutError, socket.timeout):
        pass
still_answers()

# Too many clients have to wait until others have gone.
many = [Connection() for i in range(40)]
many[-1].send_body(json.dumps(request()))
for c in many[:-1]:
    c.__exit__()
assert "result" in many[-1].receive()
many[-1].__exit__()
still_answers()
