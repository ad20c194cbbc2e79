"""A TLS server on Python's ssl module that says what it measured. Arguments are words KEY=VALUE: cert, key, version (1.2 or
1.3), alpn (a list with commas), service_ms (from a request to its answer), smtp (1: TLS begins only after STARTTLS).
Prints the port it listens on, then a line of JSON for each connection that ended, one after the other, for ever."""

import json
import socket
import ssl
import sys
import time

settings = dict(word.split("=", 1) for word in sys.argv[1:])
HEADER = 256  # OpenSSL's mark for a record's header
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(settings["cert"], settings["key"])
    if version := settings.get("version"):
        made.minimum_version = made.maximum_version = VERSIONS[version]
    if "alpn" in settings:
        made.set_alpn_protocols(settings["alpn"].split(","))
    made.sni_callback = lambda stream, name, _context: setattr(stream, "sni", name)
    return made


def line(plain):
    """One line, byte by byte: nothing of what follows it may be read."""
    read = b""
    while not read.endswith(b"\n"):
        byte = plain.recv(1)
        if not byte:
            raise EOFError("the client left in the middle of a line")
        read += byte
    return read.strip().upper()


def smtp(plain):
    """What an SMTP server and its client say before TLS begins."""
    plain.sendall(b"220 mail.test ESMTP\r\n")
    while not (said := line(plain)).startswith(b"STARTTLS"):
        plain.sendall(b"250-mail.test\r\n250 STARTTLS\r\n" if said.startswith(b"EHLO") else b"250 ok\r\n")
    plain.sendall(b"220 go ahead\r\n")


def requests(stream):
    count, head = 0, b""
    while data := stream.recv(65536):
        head += data
        if not head.endswith(b"\r\n\r\n"):
            continue
        count += 1
        time.sleep(int(settings.get("service_ms", 0)) / 1e3)
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        last, head = b"HTTP/1.0" in head, b""
        if last:
            break
    return count


def serve(made, plain, peer):
    plain.settimeout(60)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if settings.get("smtp") == "1":
        smtp(plain)
    stream = made.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    stream.sni = None
    records = []
    made._msg_callback = lambda _conn, direction, _version, content, _message, _data: (
        records.append((direction, time.perf_counter())) if content == HEADER else None
    )
    stream.do_handshake()
    # With TLS 1.3 session tickets follow the client's last message, which is the end.
    ends = ("read",) if stream.version() == "TLSv1.3" else ("read", "write")
    last = [at for direction, at in records if direction in ends][-1]
    told = {
        "remote_port": peer[1],
        "handshake_ms": (last - records[0][1]) * 1e3,
        "version": stream.version().removeprefix("TLSv"),
        "sni": stream.sni,
        "resumed": stream.session_reused,
        "alpn": stream.selected_alpn_protocol(),
        "exchanges": requests(stream),
    }
    stream.close()
    print(json.dumps(told), flush=True)


def main():
    made = context()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        plain, peer = listener.accept()
        try:
            serve(made, plain, peer)
        except (OSError, EOFError) as error:
            print(json.dumps({"remote_port": peer[1], "error": str(error)}), flush=True)
            plain.close()


main()
