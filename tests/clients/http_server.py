#!/usr/bin/env python3
"""http_server.py PROTOCOL SECRET: an HTTP server that prints its port and answers by the path's beginning.

/chunked is answered in chunks, /close with `Connection: close`, /keep with what a Keep-Alive header may say, and all else
with a few bytes. Every answer has the secret in a header, a cookie, its reason and its body.
"""
import http.server
import sys

PROTOCOL, SECRET = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every method alike."""

    protocol_version = PROTOCOL

    def do_GET(self):
        """Reads what there is to read, and answers."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"body {SECRET}\n".encode()
        status = 404 if self.path.startswith("/none") else 200
        self.send_response(status, f"Reason {SECRET}")
        self.send_header("Set-Cookie", f"session={SECRET}")
        self.send_header(f"X-{SECRET}", SECRET)
        if self.path.startswith("/close"):
            self.send_header("Connection", "close")
        if self.path.startswith("/keep"):
            self.send_header("Connection", "Keep-Alive")
            self.send_header("Keep-Alive", "timeout=5, max=100")
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (body, body, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, *_):
        """Keeps the tests' output to the tests."""


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
