// What is unread on a person's devices, where one of them holds only a part of it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Server, until } from "./server.mjs";

let server;
let owner;
const open = new Set();

before(async () => {
  server = await Server.start({ env: { DRAMATIS__USER__SEEN_EVERY_MS: "200" } });
  owner = device("owner");
});

after(async () => {
  for (const client of open) client.close();
  await server.stop();
});

function device(user, options = {}) {
  const client = connect({ url: server.url, user, ...options });
  open.add(client);
  return client;
}

/** A device of zoe's that follows a room to its end, and her own stream. */
async function follow(id, from) {
  const client = device("zoe");
  client.me.on("event", () => {});
  const room = client.room(id, from);
  await until("it is live", () => room.state === "live" && client.me.state === "live");
  return { client, room };
}

async function say(id, count) {
  const acks = await Promise.all(Array.from({ length: count }, (_, number) => owner.command(id, "post_message", { text: `line ${number}` })));
  return acks.map(({ revision }) => revision).sort((one, other) => one - other);
}

const becomes = (what, { room }, count) => until(`${count} are unread ${what}`, () => room.unread === count);

describe("what is unread where a part of it is held", () => {
  test("is right on every device once one has read to before that part", async () => {
    await owner.command("partly", "open_room", { title: "Partly" });
    const first = await follow("partly");
    first.room.seen();
    const revisions = await say("partly", 120);
    await becomes("here", first, 120);
    const second = await follow("partly");
    await becomes("there, as the server counts", second, 120);
    first.room.seen(revisions[39]);
    await becomes("here", first, 80);
    await becomes("there, as its own stream tells", second, 80);
    second.room.seen(revisions[49]);
    await becomes("there at once", second, 70);
    await becomes("here", first, 70);
    second.room.seen(revisions[99]);
    assert.equal(second.room.unread, 20);
  });

  test("is right where a device went on from its cursor and holds nothing of before", async () => {
    await owner.command("resumed", "open_room", { title: "Resumed" });
    const first = await follow("resumed");
    const revisions = await say("resumed", 10);
    await until("all came", () => first.room.cursor.after === revisions[9]);
    first.room.seen(revisions[1]);
    const second = await follow("resumed");
    await until("it has heard of the marker", () => second.room.seenRevision === revisions[1]);
    const { cursor } = second.room;
    second.client.close();
    const resumed = await follow("resumed", cursor);
    await becomes("there, as the server counts", resumed, 8);
    first.room.seen(revisions[6]);
    await becomes("there, as its own stream tells", resumed, 3);
    await say("resumed", 1);
    await becomes("with one more", resumed, 4);
    resumed.room.seen(revisions[8]);
    await becomes("at once", resumed, 2);
  });
});
