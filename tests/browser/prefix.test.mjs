// A server behind a proxy that serves it under a path, among others.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Server, until } from "./server.mjs";

const PREFIX = "/behind/chat";

let server;
let proxy;
let origin;
const open = new Set();
let asked = []; // paths, as they came
let letsSocketsThrough = true;

/** The path at the server; null for what is not under the prefix. */
function inner(path) {
  asked.push(path.split("?")[0]);
  return path.startsWith(`${PREFIX}/`) ? path.slice(PREFIX.length) : null;
}

function pass(request, response) {
  const path = inner(request.url);
  if (path === null) return response.writeHead(404).end();
  const behind = http.request({ port: server.port, host: "127.0.0.1", method: request.method, path, headers: request.headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  behind.on("error", () => response.destroy());
  response.on("close", () => behind.destroy());
  return request.pipe(behind);
}

function upgrade(request, socket, head) {
  const path = inner(request.url);
  if (path === null || !letsSocketsThrough) return socket.destroy();
  const behind = net.connect(server.port, "127.0.0.1");
  const { rawHeaders } = request;
  const headers = rawHeaders.flatMap((name, at) => (at % 2 === 0 ? `${name}: ${rawHeaders[at + 1]}` : []));
  behind.write(`GET ${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
  behind.write(head);
  for (const side of [socket, behind]) side.on("error", () => {}).on("close", () => { socket.destroy(); behind.destroy(); });
  return socket.pipe(behind).pipe(socket);
}

before(async () => {
  server = await Server.start();
  proxy = http.createServer(pass).on("upgrade", upgrade);
  await new Promise((resolve) => { proxy.listen(0, "127.0.0.1", resolve); });
  origin = `http://127.0.0.1:${proxy.address().port}`;
});

after(async () => {
  for (const client of open) client.close();
  proxy.closeAllConnections();
  proxy.close();
  await server.stop();
});

async function visit(url, options, id) {
  asked = [];
  const alice = connect({ url, user: "alice", ...options });
  open.add(alice);
  await alice.command(id, "open_room", { title: "Behind a proxy" });
  const heard = [];
  const room = alice.room(id);
  room.on("event", ({ name, data }) => name === "MessagePosted" && heard.push(data.text));
  await room.post("good evening");
  await until("it is heard", () => heard.length === 1);
  await room.history();
  await until("it is listed", async () => (await alice.api.rooms()).rooms.some((entry) => entry.room === id));
  const { transport } = alice.status;
  alice.close();
  const outside = asked.filter((path) => !path.startsWith(`${PREFIX}/`) || path.startsWith(`${PREFIX}//`));
  assert.deepEqual(outside, []);
  return transport;
}

describe("a path in the server's address", () => {
  for (const transport of ["socket", "stream", "poll"]) {
    for (const end of ["", "/"]) {
      test(`is before all that is asked, over ${transport}${end ? ", with a slash at its end" : ""}`, async () => {
        assert.equal(await visit(`${origin}${PREFIX}${end}`, { transports: [transport] }, `at-${transport}${end ? "-2" : ""}`), transport);
      });
    }
  }

  test("is kept where no WebSocket gets through", async () => {
    letsSocketsThrough = false;
    assert.equal(await visit(`${origin}${PREFIX}`, {}, "fallen-back"), "stream");
    letsSocketsThrough = true;
    assert.ok(asked.includes(`${PREFIX}/api/health`));
  });
});

describe("what is no server's address", () => {
  test("is refused with what was expected", () => {
    for (const url of [
      "ws://127.0.0.1:7400", "wss://chat.example/socket", "127.0.0.1:7400", "localhost:7400", "/chat", "file:///chat",
      "http://chat.example/?room=lobby", "http://chat.example/#lobby", "http://alice:secret@chat.example/",
    ]) assert.throws(() => connect({ url, user: "alice" }), { name: "TypeError", message: /expected http:\/\/ or https:\/\// }, url);
  });
});
