#!/usr/bin/env python3
"""demo_client.py CLOSING_PORT KEEPING_PORT: a client that treats its connections in different ways."""
import contextlib
import http.client
import socket
import sys
import time

CLOSING_PORT, KEEPING_PORT = int(sys.argv[1]), int(sys.argv[2])
UNUSED_PORT = 9


def wait_for(port):
    """Waits until something listens."""
    for _ in range(300):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def get(connection, path="/"):
    """One request on a connection."""
    connection.request("GET", path)
    return connection.getresponse().read()


def one_connection_per_request():
    """What a client without keep-alive does; the server closes each."""
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", CLOSING_PORT)
        get(connection)
        connection.close()


def keep_alive_with_pauses():
    """One connection for five requests, closed by the client."""
    connection = http.client.HTTPConnection("127.0.0.1", KEEPING_PORT)
    for _ in range(5):
        get(connection)
        time.sleep(0.3)
    connection.close()


def idle_for_too_long():
    """The server's idle timeout (2 s) is shorter than the client's pause: the next request meets a dead connection."""
    connection = http.client.HTTPConnection("127.0.0.1", KEEPING_PORT)
    get(connection)
    time.sleep(3)
    with contextlib.suppress(http.client.HTTPException, OSError):
        get(connection)
    connection.close()


def refused():
    """Nobody listens."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", UNUSED_PORT))


def reset():
    """The server resets the connection instead of answering."""
    connection = http.client.HTTPConnection("127.0.0.1", KEEPING_PORT)
    with contextlib.suppress(ConnectionResetError, http.client.HTTPException):
        get(connection, "/reset")
    connection.close()


def main():
    """Every manner in turn."""
    for port in (CLOSING_PORT, KEEPING_PORT):
        wait_for(port)
    for manner in (one_connection_per_request, keep_alive_with_pauses, idle_for_too_long, refused, reset):
        print(f"demo: {manner.__doc__}", file=sys.stderr, flush=True)
        manner()


main()
