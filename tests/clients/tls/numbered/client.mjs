// The same as client.py on Node's https module, which talks to OpenSSL through memory. keep_alive=1: one connection a number;
// without it one a request.

import { readFileSync } from "node:fs";
import { Agent, get } from "node:https";

const settings = Object.fromEntries(process.argv.slice(2).map((word) => word.split(/=(.*)/s)));
const ca = readFileSync(settings.ca);
const keepAlive = settings.keep_alive === "1";

function request(agent, number) {
  const headers = { host: `n${number}.test` };
  const options = { agent, ca, headers, host: settings.host, port: settings.port, servername: "shop.test" };
  return new Promise((resolve, reject) => {
    get(options, (response) => {
      if (response.statusCode !== 200) reject(new Error(`status ${response.statusCode}`));
      response.on("end", resolve).on("error", reject).resume();
    }).on("error", reject);
  });
}

async function talk(number) {
  const agent = new Agent({ keepAlive, maxSockets: 1 });
  for (let index = 0; index < Number(settings.requests); index += 1) await request(agent, number);
  agent.destroy();
}

await Promise.all(Array.from({ length: Number(settings.connections) }, (_, number) => talk(number)));
