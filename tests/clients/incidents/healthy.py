"""Connections that are in order, though some look odd. Arguments are words KEY=VALUE: what (one of the functions below), host,
port, seconds (how long it lasts), and what is told at each. Servers print the port they listen on, and serve until they are
killed."""

import http.client
import random
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

settings = dict(word.split("=", 1) for word in sys.argv[1:])
SECONDS = float(settings.get("seconds", 1))
CHUNK = bytes(1 << 16)


def address():
    return settings["host"], int(settings["port"])


def connection():
    return http.client.HTTPConnection(*address(), timeout=120)


def get(to, path, headers={}):
    to.request("GET", path, headers=headers)
    answer = to.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}")
    return answer.read()


class Handler(BaseHTTPRequestHandler):
    """Answers after `wait_s`, with `mb` megabytes."""

    protocol_version = "HTTP/1.1"
    # A head and a body that leave apart would wait for each other's acknowledgment.
    wbufsize = 1 << 16

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        time.sleep(float(query.get("wait_s", ["0"])[0]))
        chunks = 16 * int(query.get("mb", ["0"])[0])
        self.send_response(200)
        self.send_header("Content-Length", str(chunks * len(CHUNK)))
        self.end_headers()
        for _ in range(chunks):
            self.wfile.write(CHUNK)

    def log_message(self, *_rest):
        pass


def server():
    """Keeps connections for as long as clients do."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(made.server_address[1], flush=True)
    made.serve_forever()


def moody(made):
    """Closes each connection when it has been idle for a time that nobody can foresee."""
    with made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            made.settimeout(random.uniform(0.5, 8))
            try:
                if not made.recv(4096):
                    return
            except TimeoutError:
                return
            made.sendall(b"done\n")


def moody_server():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=moody, args=(listener.accept()[0],), daemon=True).start()


def moody_client():
    """Asks again and again; looks whether its connection still lives before it does."""
    ends, made = time.monotonic() + SECONDS, None
    while time.monotonic() < ends:
        if made and select.select([made], [], [], 0)[0]:
            made.close()
            made = None
        made = made or socket.create_connection(address())
        made.sendall(b"do\n")
        made.recv(4096)
        time.sleep(random.uniform(0, 4))


def long_poll():
    """Each answer takes `wait_s`."""
    to, ends = connection(), time.monotonic() + SECONDS
    while time.monotonic() < ends:
        get(to, f"/poll?wait_s={settings['wait_s']}")
    to.close()


def pool():
    """Uses several connections, and lets go of all when it is done."""
    made = [connection() for _ in range(8)]
    for _ in range(5):
        for to in made:
            get(to, "/")
    time.sleep(SECONDS)
    for to in made:
        to.close()


def scan():
    """Looks which ports are open."""
    for port in range(1, 400):
        with socket.socket() as made:
            made.connect_ex((settings["host"], port))


def health():
    """A check every 30 s, on a connection of its own."""
    ends = time.monotonic() + SECONDS
    while True:
        to = connection()
        get(to, "/health", {"Connection": "close"})
        to.close()
        if time.monotonic() + 30 > ends:
            return
        time.sleep(30)


{
    "server": server,
    "moody_server": moody_server,
    "moody_client": moody_client,
    "long_poll": long_poll,
    "pool": pool,
    "scan": scan,
    "health": health,
}[settings["what"]]()
