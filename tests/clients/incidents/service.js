// A service in front of DynamoDB, on the AWS SDK. Arguments are words KEY=VALUE: endpoint, keep_alive (1 or 0: whether
// the agent keeps connections), ahead (how many it opens before the first call), plan (words with commas between them: a number of calls made at once, or `p` and the
// milliseconds of a pause). Prints a line of JSON for each call: since when, and how long it took.

const { Agent } = require("node:https");
const tls = require("node:tls");
const { DynamoDBClient, GetItemCommand } = require("@aws-sdk/client-dynamodb");

const settings = Object.fromEntries(process.argv.slice(2).map((word) => word.split(/=(.*)/s)));

/** An agent whose first connections are opened before they are needed. */
class EarlyAgent extends Agent {
  stock = [];

  async open(count, { hostname: host, port }) {
    const connect = () => new Promise((resolve, reject) => {
      const socket = tls.connect({ host, port, servername: host, ALPNProtocols: ["http/1.1"] }, () => resolve(socket));
      socket.once("error", reject);
    });
    this.stock = await Promise.all(Array.from({ length: count }, connect));
  }

  createConnection(options, callback) {
    return this.stock.pop() ?? super.createConnection(options, callback);
  }
}

const agent = new EarlyAgent({ keepAlive: settings.keep_alive === "1" });
const client = new DynamoDBClient({
  endpoint: settings.endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "id", secretAccessKey: "secret" },
  maxAttempts: 1,
  requestHandler: { httpsAgent: agent },
});

async function call() {
  const at = performance.now();
  await client.send(new GetItemCommand({ TableName: "shop", Key: { id: { S: "one" } } }));
  console.log(JSON.stringify({ at_ms: at, took_ms: performance.now() - at }));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

(async () => {
  await agent.open(Number(settings.ahead ?? 0), new URL(settings.endpoint));
  for (const step of settings.plan.split(",")) {
    if (step.startsWith("p")) await pause(Number(step.slice(1)));
    else await Promise.all(Array.from({ length: Number(step) }, call));
  }
  client.destroy();
})();
