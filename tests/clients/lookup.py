"""Looks names up by the C library and connects to what they have, as told: prints a JSON line a step.

    lookup.py STEP...      connect:NAME:PORT  look NAME up and connect
                           again:PORT         connect to the last address, without a lookup
                           only:NAME          look NAME up
"""
import json, socket, sys, time

last = None


def look_up(name):
    global last
    began = time.monotonic()
    try:
        last = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0][4][0]
        error = None
    except socket.gaierror as failure:
        error = str(failure)
    return {"name": name, "took_ms": (time.monotonic() - began) * 1000, "error": error}


def connect(port):
    with socket.create_connection((last, int(port))) as connection:
        return {"local": "%s:%d" % connection.getsockname(), "remote": "%s:%d" % connection.getpeername()}


for step in sys.argv[1:]:
    what, *rest = step.split(":")
    if what == "connect":
        result = look_up(rest[0]) | connect(rest[1])
    elif what == "again":
        result = connect(rest[0])
    else:
        result = look_up(rest[0])
    print(json.dumps(result), flush=True)
