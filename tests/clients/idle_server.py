#!/usr/bin/env python3
"""idle_server.py PORT SECONDS: an HTTP/1.1 server that closes a connection after so many idle seconds.

The path /reset makes it reset the connection instead of answering.
"""
import http.server
import os
import socket
import struct
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request alike and keeps the connection open."""

    protocol_version = "HTTP/1.1"
    timeout = float(sys.argv[2])
    body = b"hello\n"

    def do_GET(self):
        """Answers, or resets the connection."""
        if self.path == "/reset":
            # Closing a socket that lingers for 0 s sends RST. The descriptor itself: a shutdown would send FIN first.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        """Keeps the demo's output to the tracer."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
