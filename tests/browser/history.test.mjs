// What waits in client.js while the server's history is replaced by another, of a backup or cut by a
// repair: what names a message by its revision is handed back, as there it would be another message.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { Outbox } from "../../src/web/ui/client/outbox.js";
import { Server, until } from "./server.mjs";

let server;
let backups = 0;

before(async () => {
  server = await Server.start();
});

after(() => server.stop());

const client = (store) => connect({ url: server.url, user: "alice", store });

/** Ends the server, and starts it on the backup that was taken before what `meanwhile` did. */
async function restored(meanwhile) {
  backups += 1;
  const store = `${server.root}/backups-${backups}`;
  await server.run("backup", "create", "--data", server.data, "--store", store);
  const given = await meanwhile();
  await server.kill();
  await server.run("backup", "restore", "--store", store, "latest", "--into", `${server.root}/restored-${backups}`);
  server.data = `${server.root}/restored-${backups}`;
  return given;
}

const texts = async (made, id) => (await made.room(id).history()).events
  .filter(({ name }) => name === "MessagePosted").map(({ data }) => data.text);

describe("what waits when the server's history is replaced", () => {
  for (const [what, isReloaded] of [["by the page that wrote it", false], ["after a reload", true]]) {
    test(`is handed back where it names a message, and else sent, ${what}`, async () => {
      const store = memoryStore();
      const alice = client(store);
      const id = `replaced-${isReloaded}`;
      await alice.command(id, "open_room", { title: id });
      const room = alice.room(id);
      await until("it is live", () => room.state === "live");
      const { revision } = await restored(() => room.post("to be edited"));
      await until("the line is gone", () => alice.greeting === null);
      const edit = room.edit(revision, "edited");
      const others = [room.react(revision, "👍"), room.post("an answer", { replyTo: revision }), alice.command(id, "rename_room", { title: "Renamed" }, { expected: revision })];
      const plain = room.post("of no other message");
      for (const promise of [edit, plain, ...others]) promise.catch(() => {});
      if (isReloaded) alice.close();
      const back = isReloaded ? client(store) : alice;
      await server.up();
      if (isReloaded) await until("what can be sent was", () => back.pending.length === 4);
      else {
        await plain;
        await assert.rejects(edit, (error) => error.code === "expired" && /history was replaced/.test(error.message));
      }
      assert.deepEqual(back.pending.map(({ state, expiredBy, frame }) => [state, expiredBy, frame.name]), [
        ["expired", "history", "edit_message"], ["expired", "history", "add_reaction"],
        ["expired", "history", "post_message"], ["expired", "history", "rename_room"],
      ]);
      assert.deepEqual(await texts(back, id), ["of no other message"]);
      // Whoever wants it all the same may: now it is of the new history.
      const { id: answer } = back.pending[2];
      back.resend(answer);
      await until("it is answered", () => !back.pending.some((entry) => entry.id === answer));
      back.close();
    });
  }

  test("is sent where it names one and the history is the same", async () => {
    const store = memoryStore();
    const alice = client(store);
    await alice.command("same", "open_room", { title: "Same" });
    const { revision } = await alice.room("same").post("to be edited");
    await server.kill();
    await until("the line is gone", () => alice.greeting === null);
    alice.room("same").edit(revision, "edited").catch(() => {});
    alice.close();
    await server.up();
    // Nothing is followed that would tell the history: the client asks for it.
    const back = client(store);
    assert.equal((await back.once("settled")).refusal, undefined);
    const { events } = await back.room("same").history();
    assert.ok(events.some(({ name, data }) => name === "MessageEdited" && data.text === "edited"));
    back.close();
  });
});

describe("a client that was closed", () => {
  test("refuses what is asked of it, and stores none of it", async () => {
    const store = memoryStore();
    const alice = client(store);
    await alice.command("closing", "open_room", { title: "Closing" });
    const room = alice.room("closing");
    alice.close();
    await assert.rejects(room.post("too late"), { code: "closed" });
    await assert.rejects(room.history(), { code: "closed" });
    assert.deepEqual(store.list(), []);
  });
});

describe("a command that is no JSON", () => {
  test("is refused, and keeps none behind it", async () => {
    const sent = [];
    const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: (frame) => sent.push(JSON.stringify(frame)) });
    const frame = (id, data) => ({ type: "command", id, room: "r", name: "post_message", data });
    const bad = outbox.add(frame("a", { text: 1n }));
    const round = {};
    round.round = round;
    const worse = outbox.add(frame("b", round));
    const data = { text: "good" };
    outbox.add(frame("c", data)).catch(() => {});
    data.text = "changed since";
    outbox.ready();
    await assert.rejects(bad, { code: "malformed" });
    await assert.rejects(worse, { code: "malformed" });
    assert.deepEqual(sent.map((text) => JSON.parse(text).data.text), ["good"]);
    outbox.close();
  });
});
