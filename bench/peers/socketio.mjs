// The peer `socketio`: Socket.IO 4 with its rooms, over WebSocket alone. It keeps nothing, as `ws`.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { Rooms, listening } from "./rooms.mjs";

const http = createServer();
const server = new Server(http, { transports: ["websocket"], perMessageDeflate: false });
const rooms = new Rooms((room, event) => server.to(room).emit("message", event));

server.on("connection", (socket) => {
  socket.on("message", (message) => {
    for (const answer of rooms.hear(message, (room) => socket.join(room))) socket.emit("message", answer);
  });
});

http.listen(0, "127.0.0.1", () => listening(http.address().port));
