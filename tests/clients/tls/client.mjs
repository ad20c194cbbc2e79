// A client on Node's https module; settings and output as in client.py. keep_alive=1 lets the agent reuse its connection;
// without it each request has a connection of its own. Node's agent resumes sessions by itself. Node tells
// neither when it sends and receives what belongs to a handshake, nor at once when it is done: its events wait their turn.
// So it says only how long it took in all, from before the connect to that event (setup_ms); wire_clock.c says the rest.

import { readFileSync } from "node:fs";
import { Agent, get } from "node:https";

const settings = Object.fromEntries(process.argv.slice(2).map((word) => word.split(/=(.*)/s)));
const keepAlive = settings.keep_alive === "1";
const told = [];

class TimedAgent extends Agent {
  createConnection(options, callback) {
    const began = performance.now();
    const socket = super.createConnection(options, callback);
    const line = {
      client: "node", connect_ms: null, before_hello_ms: null, handshake_ms: null, after_ms: null, setup_ms: null,
      first_byte_ms: null, version: null, sni: settings.sni, resumed: null, exchanges: 0, local_port: null,
    };
    socket.told = line;
    told.push(line);
    socket.once("connect", () => {
      line.connect_ms = performance.now() - began;
      line.local_port = socket.localPort;
    });
    socket.once("secureConnect", () => {
      line.setup_ms = performance.now() - began;
      line.version = socket.getProtocol().replace("TLSv", "");
      line.resumed = socket.isSessionReused();
    });
    return socket;
  }
}

const version = settings.version && `TLSv${settings.version}`;
const agent = new TimedAgent({ keepAlive, maxSockets: 1, ca: readFileSync(settings.ca) });
const options = {
  agent, host: settings.host, port: settings.port, servername: settings.sni, minVersion: version, maxVersion: version,
  headers: { host: settings.sni },
};

function request() {
  return new Promise((resolve, reject) => {
    let asked;
    const sent = get(options, (response) => {
      const line = response.socket.told;
      line.first_byte_ms ??= performance.now() - asked;
      line.exchanges += 1;
      response.on("end", resolve).on("error", reject).resume();
    });
    sent.on("error", reject);
    sent.on("socket", (socket) => {
      asked = performance.now();
      if (!socket.told.version) socket.once("secureConnect", () => (asked = performance.now()));
    });
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

for (let index = 0; index < Number(settings.requests ?? 1); index += 1) {
  if (index > 0) await pause(Number(settings.gap_ms ?? 0));
  await request();
}
agent.destroy();
for (const line of told) console.log(JSON.stringify(line));
