"""Looks names up by the C library and connects to what they have, as told: prints a JSON line a step.

    lookup.py STEP...      connect:NAME:PORT  look NAME up and connect
                           again:PORT         connect to the last address, without a lookup
                           only:NAME          look NAME up
                           ask:SERVER         from here on look up at SERVER by datagrams of our own; prints nothing
"""
import json, socket, struct, sys, time

last = None
server = None


def question(number, name, kind):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)


def ask(name):
    """Asks for A and AAAA at once from one socket that is not connected, as musl does; through an IPv6 socket also where
    the server has an IPv4 address in IPv6's clothes. Returns the A record that ends an answer."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    questions = {1: question(1, name, 1), 2: question(2, name, 28)}
    address = None
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        for datagram in questions.values():
            asker.sendto(datagram, (server, 53))
        while questions:
            answer, _ = asker.recvfrom(1232)
            number, _, _, records = struct.unpack(">HHHH", answer[:8])
            del questions[number]
            if number == 1 and records:
                address = socket.inet_ntoa(answer[-4:])
    if address is None:
        raise socket.gaierror("no address")
    return address


def look_up(name):
    global last
    began = time.monotonic()
    try:
        last = ask(name) if server else socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0][4][0]
        error = None
    except socket.gaierror as failure:
        error = str(failure)
    return {"name": name, "took_ms": (time.monotonic() - began) * 1000, "error": error}


def connect(port):
    with socket.create_connection((last, int(port))) as connection:
        return {"local": "%s:%d" % connection.getsockname(), "remote": "%s:%d" % connection.getpeername()}


for step in sys.argv[1:]:
    what, *rest = step.split(":")
    if what == "ask":
        server = ":".join(rest)
        continue
    if what == "connect":
        result = look_up(rest[0]) | connect(rest[1])
    elif what == "again":
        result = connect(rest[0])
    else:
        result = look_up(rest[0])
    print(json.dumps(result), flush=True)
