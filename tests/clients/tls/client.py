"""A client on Python's ssl module. Arguments are words KEY=VALUE:
host, port, sni, ca, connections (one after the other), requests (on each), gap_ms (between requests), version (1.2 or 1.3),
resume (1: offer the session of the connection before), cert and key (the client's own).
Prints a line of JSON for each connection: what it measured itself. The time of a handshake is in three parts: what is computed
before the ClientHello is handed to TCP; from there to the last message, as it is about to be sent or has been received (this is
the part that can be seen from outside, handshake_ms); and what is computed after it."""

import json
import socket
import ssl
import sys
import time

settings = dict(word.split("=", 1) for word in sys.argv[1:])
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def ms(seconds):
    return seconds * 1e3


def context():
    made = ssl.create_default_context(cafile=settings["ca"])
    if version := settings.get("version"):
        made.minimum_version = made.maximum_version = VERSIONS[version]
    if "cert" in settings:
        made.load_cert_chain(settings["cert"], settings["key"])
    return made


class Records:
    """When the first record of a handshake was about to be sent, and when its last one was about to be sent or had been
    received. What OpenSSL computes before and after is not on the wire."""

    HEADER = 256  # OpenSSL's mark for a record's header

    def __init__(self, made):
        self.first = self.last = None
        made._msg_callback = self.take

    def take(self, _conn, _direction, _version, content, _message, _data):
        if content == self.HEADER:
            self.last = time.perf_counter()
            self.first = self.first or self.last


def request(stream):
    """One HTTP exchange; returns how long its first byte took."""
    head = f"GET / HTTP/1.1\r\nHost: {settings['sni']}\r\n\r\n"
    before = time.perf_counter()
    stream.sendall(head.encode())
    answer = stream.recv(65536)
    first_byte = time.perf_counter() - before
    while b"\r\n\r\n" not in answer:
        answer += more(stream)
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += more(stream)
    return first_byte


def more(stream):
    data = stream.recv(65536)
    if not data:
        raise EOFError("the server closed in the middle of an answer")
    return data


def connection(made, session):
    records = Records(made)
    before = time.perf_counter()
    plain = socket.create_connection((settings["host"], int(settings["port"])), timeout=60)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected = time.perf_counter()
    stream = made.wrap_socket(
        plain, server_hostname=settings["sni"], session=session, do_handshake_on_connect=False
    )
    stream.do_handshake()
    done, hello, last = time.perf_counter(), records.first, records.last
    requests = int(settings.get("requests", 1))
    first_byte = None
    for index in range(requests):
        if index > 0:
            time.sleep(int(settings.get("gap_ms", 0)) / 1e3)
        took = request(stream)
        first_byte = took if first_byte is None else first_byte
    told = {
        "client": "python",
        "connect_ms": ms(connected - before),
        "before_hello_ms": ms(hello - connected),
        "handshake_ms": ms(last - hello),
        "after_ms": ms(done - last),
        "first_byte_ms": None if first_byte is None else ms(first_byte),
        "version": stream.version().removeprefix("TLSv"),
        "sni": settings["sni"],
        "resumed": stream.session_reused,
        "exchanges": requests,
        "local_port": stream.getsockname()[1],
    }
    # TLS 1.3 brings the session after the handshake: with the first answer at the latest.
    session = stream.session
    stream.close()
    print(json.dumps(told), flush=True)
    return session


def main():
    made, session = context(), None
    for _ in range(int(settings.get("connections", 1))):
        session = connection(made, session if settings.get("resume") == "1" else None)


main()
