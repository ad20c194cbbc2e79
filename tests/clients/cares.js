// Looks names up by c-ares, one after the other, and connects to each: cares.js PORT NAME... Prints a JSON line a name.
const dns = require('dns'), net = require('net');
const [port, ...names] = process.argv.slice(2);
const resolver = new dns.Resolver();
resolver.setServers(['127.0.0.1']);

function measure([name, ...later]) {
  if (name === undefined) return;
  const began = process.hrtime.bigint();
  resolver.resolve4(name, (error, addresses) => {
    if (error) throw error;
    const took_ms = Number(process.hrtime.bigint() - began) / 1e6;
    const socket = net.connect(Number(port), addresses[0], () => {
      const local = `${socket.localAddress}:${socket.localPort}`, remote = `${socket.remoteAddress}:${socket.remotePort}`;
      console.log(JSON.stringify({name, took_ms, error: null, local, remote}));
      socket.destroy();
      measure(later);
    });
  });
}

// The first lookup compiles and loads what later ones use.
resolver.resolve4('warm.test', () => measure(names));
