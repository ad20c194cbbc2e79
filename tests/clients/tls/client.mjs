// A client on Node's https module; settings and output as in client.py. keep_alive=1 lets the agent reuse its connection;
// without it each request has a connection of its own. Node's agent resumes sessions by itself.

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
      client: "node", connect_ms: null, handshake_ms: null, before_hello_ms: null, first_byte_ms: null, version: null,
      sni: settings.sni, resumed: null, exchanges: 0, local_port: null,
    };
    socket.told = line;
    told.push(line);
    let connected;
    socket.once("connect", () => {
      connected = performance.now();
      line.connect_ms = connected - began;
      line.local_port = socket.localPort;
    });
    socket.once("secureConnect", () => {
      line.handshake_ms = performance.now() - connected;
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
