// A room that was not to be read when it was asked for is followed once this person has opened or joined it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Room } from "../../src/web/ui/client/room.js";
import { Server, until } from "./server.mjs";

let server;
const open = new Set();

before(async () => {
  server = await Server.start();
});

after(async () => {
  for (const client of open) client.close();
  await server.stop();
});

function client(user, options = {}) {
  const made = connect({ url: server.url, user, ...options });
  open.add(made);
  return made;
}

/** A room that is denied, and the texts heard in it. */
async function denied(who, id) {
  const room = who.room(id);
  const heard = [];
  room.on("event", ({ name, data }) => name === "MessagePosted" && heard.push(data.text));
  if (room.state !== "denied") await room.once("denied");
  return { room, heard };
}

for (const transport of ["socket", "stream", "poll"]) {
  describe(`over ${transport}, a room that was denied is followed`, () => {
    const through = (user) => client(user, { transports: [transport] });

    test("once this client opens it", async () => {
      const alice = through("alice");
      const { room, heard } = await denied(alice, `opened-${transport}`);
      await room.command("open_room", { title: "Opened" });
      await room.post("good evening");
      await until("she hears herself", () => heard.includes("good evening"));
      await until("it is live", () => room.state === "live");
    });

    test("once it is opened in the same breath as it is asked for", async () => {
      const alice = through("alice");
      await alice.once("ready");
      const room = alice.room(`at-once-${transport}`);
      const heard = [];
      room.on("event", ({ name, data }) => name === "MessagePosted" && heard.push(data.text));
      await room.command("open_room", { title: "At once" });
      await room.post("good evening");
      await until("she hears herself", () => heard.includes("good evening"));
    });

    test("once this person joins it as a guest, again after they were removed", async () => {
      const [host, guest] = [through("host"), through("guest")];
      const id = `invited-${transport}`;
      await host.command(id, "open_room", { title: "Invited", visibility: "invited" });
      const { room, heard } = await denied(guest, id);
      await host.command(id, "invite_member", { member: "guest" });
      await room.join();
      await host.command(id, "post_message", { text: "welcome" });
      await until("the guest hears it", () => heard.includes("welcome"));
      const closed = room.once("closed");
      await host.command(id, "remove_member", { member: "guest" });
      await closed;
      await host.command(id, "post_message", { text: "meanwhile" });
      await host.command(id, "invite_member", { member: "guest" });
      await room.join();
      await until("the guest hears what came since", () => heard.length === 2);
      assert.deepEqual(heard, ["welcome", "meanwhile"]);
    });
  });
}

describe("a room that was denied here", () => {
  test("is followed once this person accepts its invitation elsewhere, where their own stream is", async () => {
    const [host, laptop, phone] = [client("a-host"), client("both"), client("both")];
    await host.command("elsewhere", "open_room", { title: "Elsewhere", visibility: "invited" });
    laptop.me.on("event", () => {});
    const { room, heard } = await denied(laptop, "elsewhere");
    await host.command("elsewhere", "invite_member", { member: "both" });
    await phone.command("elsewhere", "join");
    await host.command("elsewhere", "post_message", { text: "welcome" });
    await until("the laptop hears it", () => heard.includes("welcome"));
    assert.equal(room.state, "live");
  });
});

/** A room, and what it sends. */
function follow() {
  const sent = [];
  const room = new Room("r", { user: "alice", isLive: true, send: (message) => sent.push(message), forget: () => {} });
  room.subscribe();
  const answer = (id, how) => room.take({ type: "subscribed", id, room: "r", epoch: "00000000000000aa.0", how, ...(how === "denied" ? { code: "not_found" } : { head: 3 }) });
  return { room, sent, answer };
}

test("a denial that is older than the coming in is asked about once more, and no more than that", () => {
  const { room, sent, answer } = follow();
  room.entered();
  answer(sent[0].id, "denied");
  assert.deepEqual([sent.length, room.state], [2, "joining"]);
  answer(sent[1].id, "denied");
  assert.deepEqual([sent.length, room.state], [2, "denied"]);
});

test("a room that is denied here asks again when another tab was let in over the same line", () => {
  const { room, sent, answer } = follow();
  answer(sent[0].id, "denied");
  answer("of another tab", "denied");
  assert.deepEqual([sent.length, room.state], [1, "denied"]);
  answer("of another tab", "events");
  assert.deepEqual([sent.length, room.state], [2, "joining"]);
  answer(sent[1].id, "events");
  assert.equal(room.state, "catching_up");
});
