// Both ends of a websocket: without a port it serves, and prints the port; with one it connects, and sends a message now and
// then. Arguments are words KEY=VALUE: port, seconds.

const { WebSocket, WebSocketServer } = require("ws");

const settings = Object.fromEntries(process.argv.slice(2).map((word) => word.split(/=(.*)/s)));

function serve() {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () => console.log(server.address().port));
  server.on("connection", (socket) => socket.on("message", (message) => socket.send(message)));
}

function connect() {
  const socket = new WebSocket(`ws://127.0.0.1:${settings.port}/`);
  const say = () => {
    socket.send("hello");
    setTimeout(say, 500 + 5000 * Math.random());
  };
  socket.on("open", say);
  setTimeout(() => process.exit(0), Number(settings.seconds) * 1e3);
}

if (settings.port) connect();
else serve();
