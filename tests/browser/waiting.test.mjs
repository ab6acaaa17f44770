// Commands that wait: whatever they wait for comes, and none is sent that somebody has given up.

import { after, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Proxy, Server, until } from "./server.mjs";

let server;
let proxy;
const open = new Set();

before(async () => {
  server = await Server.start();
  proxy = await Proxy.start(server.port);
});

after(async () => {
  for (const client of open) client.close();
  await proxy.stop();
  await server.stop();
});

function client(user, options = {}) {
  const made = connect({ url: proxy.url, user, ...options });
  open.add(made);
  return made;
}

let rooms = 0;
async function openRoom(owner) {
  const id = `waiting-${(rooms += 1)}`;
  await owner.command(id, "open_room", { title: id });
  return id;
}

async function reconnect(made) {
  const { connection } = made.greeting;
  proxy.cut();
  proxy.restore();
  await until("it is back", () => made.greeting && made.greeting.connection !== connection);
}

describe("a client that follows no room on its line", () => {
  test("sends what names a message of a history that it knew before", async () => {
    const alice = client("alice");
    const id = await openRoom(alice);
    const room = alice.room(id);
    await until("it is live", () => room.state === "live");
    const { revision } = await room.post("to be taken back");
    room.unfollow();
    await reconnect(alice);
    const done = [
      alice.command(id, "redact_message", { target: revision }),
      alice.command(id, "post_message", { text: "behind it" }),
    ];
    await until("both are answered", () => alice.pending.length === 0);
    await Promise.all(done);
  });
});
