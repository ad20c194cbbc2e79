#!/bin/bash
# Real clients and servers for `cargo xtask demo`: connections that are opened, kept, refused, reset and cut, each for
# its own reason. Needs bash and python3, talks to no other machine, and takes about ten seconds.
set -u
clients=$(cd "$(dirname "$0")" && pwd)
site=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$site"' EXIT
echo "hello" > "$site/index.html"

# HTTP/1.1 keeps connections open; the server gives up on an idle one after 2 s.
python3 "$clients/idle_server.py" 8081 2 &
python3 -m http.server --directory "$site" --bind 127.0.0.1 8080 > /dev/null 2>&1 & # HTTP/1.0: closes after each answer
python3 "$clients/demo_client.py" 8080 8081
