// A server or a client on Node's https module for `cargo xtask soak`: `soak.mjs server|client NAME=VALUE...`. It goes on until its
// input ends, and then says what came of it, as a line of JSON.
//
// The server (cert, key) says its port first, and sends each request's body back. The client (ca, port, name, connections,
// pause_ms) posts bodies and checks that they come back. Its agent keeps connections; all but the first are closed after some
// requests. The Host header of a request tells its place on its connection and the port of that: r3.c40000.node.soak.test.

import { readFileSync } from "node:fs";
import { Agent, createServer, request } from "node:https";

const [mode, ...words] = process.argv.slice(2);
const settings = Object.fromEntries(words.map((word) => word.split(/=(.*)/s)));

// Only the first few errors: the others look like them.
const ERRORS = 5;
const LENGTHS = [1, 200, 3_000, 20_000];
const PATIENCE_MS = 60_000;
const tally = { requests: 0, failed: 0, connections: 0, slowest_ms: 0, errors: [] };
let running = true;

function fail(why) {
  tally.failed += 1;
  if (tally.errors.length < ERRORS) tally.errors.push(String(why));
}

function say() {
  console.log(JSON.stringify(tally));
}

async function bodyOf(message) {
  const parts = [];
  for await (const part of message) parts.push(part);
  return Buffer.concat(parts);
}

function serve() {
  const server = createServer({ cert: readFileSync(settings.cert), key: readFileSync(settings.key) });
  // A client that is put aside for a while must find its connection again.
  server.keepAliveTimeout = 600_000;
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  server.on("secureConnection", () => (tally.connections += 1));
  server.on("tlsClientError", fail);
  server.on("request", async (asked, answer) => {
    try {
      const body = await bodyOf(asked);
      tally.requests += 1;
      const port = asked.headers.host.split(".")[1];
      if (port !== `c${asked.socket.remotePort}`) throw new Error(`${asked.headers.host} from ${asked.socket.remotePort}`);
      answer.writeHead(200, { "content-length": body.length }).end(body);
    } catch (error) {
      fail(error);
      answer.destroy();
    }
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  return () => {
    say();
    process.exit(0);
  };
}

class CountingAgent extends Agent {
  createConnection(options, callback) {
    const socket = super.createConnection(options, callback);
    const number = tally.connections;
    tally.connections += 1;
    socket.requests = 0;
    socket.limit = number === 0 ? Infinity : 10 + ((number * 7) % 30);
    return socket;
  }
}

// Sends when the connection is known. Fails if not this very body comes back.
function post(agent, body) {
  return new Promise((resolve, reject) => {
    const sent = request({
      agent, host: "127.0.0.1", port: settings.port, servername: settings.name, method: "POST", path: "/",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    sent.on("error", reject);
    sent.on("socket", (socket) => {
      const send = () => {
        sent.setHeader("host", `r${socket.requests}.c${socket.localPort}.node.soak.test`);
        socket.requests += 1;
        if (socket.requests >= socket.limit) sent.setHeader("connection", "close");
        sent.end(body);
      };
      if (socket.secureConnecting) socket.once("secureConnect", send);
      else send();
    });
    sent.on("response", async (response) => {
      try {
        const returned = await bodyOf(response);
        if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
        if (!returned.equals(body)) throw new Error(`${body.length} bytes came back as ${returned.length} or others`);
        resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function work(agent) {
  while (running) {
    const number = tally.requests;
    tally.requests += 1;
    const body = Buffer.alloc(LENGTHS[number % LENGTHS.length], `${number} `);
    const began = performance.now();
    await post(agent, body).catch(fail);
    tally.slowest_ms = Math.max(tally.slowest_ms, performance.now() - began);
    await pause(Number(settings.pause_ms));
  }
}

function ask() {
  const count = Number(settings.connections);
  const agent = new CountingAgent({ keepAlive: true, maxSockets: count, ca: readFileSync(settings.ca) });
  const done = Promise.all(Array.from({ length: count }, () => work(agent)));
  return async () => {
    running = false;
    await done;
    agent.destroy();
    say();
  };
}

const end = mode === "server" ? serve() : ask();
process.stdin.on("end", end).resume();
