// The peer `ws`: a broadcast server as its users write one. It speaks enough of our protocol for
// the driver to be the same: hello, ready, live, commands, acks, events. It keeps nothing: an
// event is gone once it is sent, and an ack says no more than that it was.
import { WebSocketServer } from "ws";
import { Rooms, listening } from "./rooms.mjs";

const HEARTBEAT_MS = 30_000;

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
server.on("listening", () => listening(server.address().port));

const followers = new Map();
const rooms = new Rooms((room, event) => {
  const text = JSON.stringify(event);
  for (const socket of followers.get(room) ?? []) socket.send(text);
});

server.on("connection", (socket) => {
  socket.isAlive = true;
  socket.on("pong", () => (socket.isAlive = true));
  socket.on("error", () => {});
  socket.on("message", (data) => {
    const follow = (room) => {
      if (!followers.has(room)) followers.set(room, new Set());
      followers.get(room).add(socket);
      (socket.rooms ??= []).push(room);
    };
    for (const line of data.toString().split("\n")) {
      for (const answer of rooms.hear(JSON.parse(line), follow)) socket.send(JSON.stringify(answer));
    }
  });
  socket.on("close", () => {
    for (const room of socket.rooms ?? []) followers.get(room)?.delete(socket);
  });
});

// As its documentation shows how to find connections that are gone.
setInterval(() => {
  for (const socket of server.clients) {
    if (!socket.isAlive) {
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, HEARTBEAT_MS);
