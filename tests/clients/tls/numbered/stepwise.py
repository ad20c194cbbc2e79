# Numbered connections like client.py's, but step by step, as standard input says: load (the TLS library, which is not there
# before), connect (all connections), request (one on each). Answers each with a line.

import socket
import sys

settings = dict(word.split("=", 1) for word in sys.argv[1:])
streams = []


def load():
    global ssl
    import ssl


def connect():
    context = ssl.create_default_context(cafile=settings["ca"])
    for _ in range(int(settings["connections"])):
        plain = socket.create_connection((settings["host"], int(settings["port"])))
        streams.append(context.wrap_socket(plain, server_hostname=settings["host"]))


def request():
    for number, stream in enumerate(streams):
        stream.sendall(f"GET / HTTP/1.1\r\nHost: n{number}.test\r\n\r\n".encode())
    for stream in streams:
        answer = b""
        while not answer.endswith(b"hello\n"):
            data = stream.recv(65536)
            assert data, "the server left"
            answer += data


steps = {"load": load, "connect": connect, "request": request}
for line in sys.stdin:
    steps[line.strip()]()
    print("done", flush=True)
for stream in streams:
    stream.close()
