// Looks a name up by c-ares and connects: cares.js NAME PORT. Prints a JSON line.
const dns = require('dns'), net = require('net');
const [name, port] = process.argv.slice(2);
const resolver = new dns.Resolver();
resolver.setServers(['127.0.0.1']);

function measure() {
  const began = process.hrtime.bigint();
  resolver.resolve4(name, (error, addresses) => {
    if (error) throw error;
    const took_ms = Number(process.hrtime.bigint() - began) / 1e6;
    const socket = net.connect(Number(port), addresses[0], () => {
      const local = `${socket.localAddress}:${socket.localPort}`, remote = `${socket.remoteAddress}:${socket.remotePort}`;
      console.log(JSON.stringify({name, took_ms, error: null, local, remote}));
      socket.destroy();
    });
  });
}

// The first lookups compile and load what later ones use.
function warm(left) {
  resolver.resolve4('warm.test', () => (left > 0 ? warm(left - 1) : measure()));
}
warm(5);
