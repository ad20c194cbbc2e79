// Both ends of HTTP/2: without a port it serves, and prints the port; with one it makes one connection, and asks on it now and
// then, for several things at once. Arguments are words KEY=VALUE: port, seconds.

const http2 = require("node:http2");

const settings = Object.fromEntries(process.argv.slice(2).map((word) => word.split(/=(.*)/s)));

function serve() {
  const server = http2.createServer();
  server.on("stream", (stream) => {
    stream.respond({ ":status": 200 });
    stream.end("hello\n");
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

function ask(session) {
  return new Promise((resolve, reject) => {
    session.request({ ":path": "/" }).on("end", resolve).on("error", reject).resume().end();
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connect() {
  const session = http2.connect(`http://127.0.0.1:${settings.port}`);
  const ends = performance.now() + Number(settings.seconds) * 1e3;
  while (performance.now() < ends) {
    await Promise.all(Array.from({ length: 1 + Math.floor(4 * Math.random()) }, () => ask(session)));
    await pause(3000 * Math.random());
  }
  session.close();
}

if (settings.port) connect();
else serve();
