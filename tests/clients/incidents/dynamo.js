// A DynamoDB, without TLS: dynalite, with one table that holds one item. Prints the port it listens on.

const { request } = require("node:http");
const dynalite = require("dynalite");

const server = dynalite({ createTableMs: 0 });

/** One call of the service's API; what it answers to a signature it does not check. */
function call(action, body) {
  return new Promise((resolve, reject) => {
    const headers = {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": `DynamoDB_20120810.${action}`,
      "x-amz-date": "20260101T000000Z",
      authorization: "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x",
      connection: "close",
    };
    const sent = request({ port: server.address().port, host: "127.0.0.1", method: "POST", headers }, (response) => {
      const finish = () => (response.statusCode === 200 ? resolve() : reject(new Error(`${action}: ${response.statusCode}`)));
      response.resume().on("end", finish);
    });
    sent.on("error", reject).end(JSON.stringify(body));
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

server.listen(0, "127.0.0.1", async () => {
  await call("CreateTable", {
    TableName: "shop",
    AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }],
    KeySchema: [{ AttributeName: "id", KeyType: "HASH" }],
    BillingMode: "PAY_PER_REQUEST",
  });
  // A table is there a moment after it was made.
  for (let tries = 0; ; tries += 1) {
    try {
      await call("PutItem", { TableName: "shop", Item: { id: { S: "one" }, price: { N: "5" } } });
      break;
    } catch (error) {
      if (tries === 100) throw error;
      await pause(50);
    }
  }
  console.log(server.address().port);
});
