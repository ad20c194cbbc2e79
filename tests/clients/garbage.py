"""A DNS server that answers wrongly, and its only client: one query, many answers, then a connect to PORT at each address.

What it sends, in this order: random bytes; a name that points at itself; an answer to another question; an answer with the
wrong number; the right question with a record of another name (127.0.0.9).
"""
import random, socket, struct, sys

port = int(sys.argv[1])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("127.0.0.1", 53))


def name(text):
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def message(number, flags, asked, records):
    question = name(asked) + struct.pack(">HH", 1, 1)
    answers = b"".join(
        name(owner) + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address) for owner, address in records
    )
    return struct.pack(">HHHHHH", number, flags, 1, len(records), 0, 0) + question + answers


client.send(message(77, 0x0100, "good.garbage.test", []))
query, address = server.recvfrom(512)
random.seed(1)
noise = query[:2] + b"\x81\x80" + bytes(random.randrange(256) for _ in range(60))
loop = struct.pack(">HHHHHH", 77, 0x8180, 1, 1, 0, 0) + b"\xc0\x0c" + struct.pack(">HH", 1, 1)
for answer in [
    noise,
    loop,
    message(77, 0x8180, "evil.garbage.test", [("evil.garbage.test", "127.0.0.9")]),
    message(78, 0x8180, "good.garbage.test", [("good.garbage.test", "127.0.0.9")]),
    message(77, 0x8180, "good.garbage.test", [("evil.garbage.test", "127.0.0.9"), ("good.garbage.test", "127.0.0.8")]),
]:
    server.sendto(answer, address)
    client.recv(512)
for to in ["127.0.0.9", "127.0.0.8"]:
    socket.create_connection((to, port)).close()
