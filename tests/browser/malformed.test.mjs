// What a server cannot read: the client says so itself where it can know it, and what it cannot know
// ends no line for good and keeps nothing else from being sent.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Rejected, connect } from "../../src/web/ui/client.js";
import { Connection } from "../../src/web/ui/client/connection.js";
import { Proxy, Server, until } from "./server.mjs";

const HALF = "🎉".slice(0, 1);
/** As many as end a line, and more. */
const COUNT = 25;

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
  const id = `room-${(rooms += 1)}`;
  await owner.command(id, "open_room", { title: "A room" });
  const room = owner.room(id);
  await until("it is live", () => room.state === "live");
  return room;
}

describe("what is known to be malformed", () => {
  const nested = (depth) => (depth === 0 ? {} : { in: nested(depth - 1) });
  const cases = {
    "half of an emoji": (room) => room.post(`good evening ${HALF}`),
    "half of an emoji in a name": (room) => room.command("post_message", { text: "x", [HALF]: 1 }),
    "half of an emoji in a command of another name": (room) => room.command("dance", { with: [{ who: HALF }] }),
    "a number as text": (room) => room.post(42),
    "an object as text": (room) => room.post({ a: 1 }),
    "no text": (room) => room.post(),
    "a reaction without one": (room) => room.react(1),
    "a reaction to none": (room) => room.react(NaN, "👍"),
    "an edit of a revision below 0": (room) => room.edit(-1, "x"),
    "a reply to text": (room) => room.post("x", { replyTo: "3" }),
    "a number as a display name": (room) => room.join(5),
    "no data": (room) => room.command("post_message", null),
    "a list as data": (room) => room.command("post_message", ["x"]),
    "text as data": (room) => room.command("leave", "bye"),
    "no name": (room) => room.command(undefined),
    "an expected revision below 0": (room) => room.command("post_message", { text: "x" }, { expected: -1 }),
    "an expected revision that is not whole": (room) => room.command("post_message", { text: "x" }, { expected: 1.5 }),
    "what lies too deep": (room) => room.command("dance", nested(200)),
    "a past before 0": (room) => room.history({ before: -1 }),
    "a past before a part": (room) => room.history({ before: 1.5 }),
    "a page of less than nothing": (room) => room.history({ limit: -1 }),
    "a page of a part": (room) => room.history({ limit: 1.5 }),
  };

  test("is refused at once, and leaves the line as it is", async () => {
    const alice = client("alice");
    const room = await openRoom(alice);
    const { connection } = alice.greeting;
    for (const [what, act] of Object.entries(cases)) {
      await assert.rejects(act(room), (error) => {
        assert.deepEqual([error.name, error.code], ["ClientError", "malformed"], what);
        assert.ok(error.message.length > 20 && error.message.length < 300, `${what}: ${error.message}`);
        return true;
      });
    }
    assert.equal(alice.pending.length, 0);
    const { revision } = await room.post("🎉 whole, and\u0000with what else a text may hold", { replyTo: null });
    await room.command("post_message", { text: "it may be null", reply_to: null });
    await room.command("redact_message", { target: revision, reason: null }, { expected: revision + 1 });
    await room.history({ before: null });
    assert.equal(alice.greeting.connection, connection);
  });

  test("is thrown at whoever says it of an ephemeral", async () => {
    const alice = client("alice");
    const room = await openRoom(alice);
    const { connection } = alice.greeting;
    const ofBytes = (bytes) => "x".repeat(bytes - 2);
    for (let count = 0; count < COUNT; count += 1) {
      assert.throws(() => room.ephemeral("caret", ofBytes(4_097)), { name: "ClientError", code: "too_big" });
      assert.throws(() => room.ephemeral("caret", { at: HALF }), { name: "ClientError", code: "malformed" });
      assert.throws(() => room.ephemeral("caret", nested(64)), { name: "ClientError", code: "malformed" });
    }
    const heard = [];
    const bob = client("bob").room(room.id);
    bob.on("ephemeral", ({ name, data }) => heard.push([name, data.length ?? null]));
    await until("bob is there", () => bob.state === "live");
    room.ephemeral("caret", ofBytes(4_096));
    await until("the longest that may be is heard", () => heard.length === 1);
    room.ephemeral("deep", nested(63));
    await until("the deepest is heard", () => heard.length === 2);
    assert.deepEqual(heard, [["caret", 4_094], ["deep", null]]);
    assert.equal(alice.greeting.connection, connection);
  });

  test("is as long as the server's own limit has it", async () => {
    const own = await Server.start({ env: { DRAMATIS__SOCKET__EPHEMERAL__DATA_BYTES_MAX: "8192" } });
    const [alice, bob] = ["alice", "bob"].map((user) => connect({ url: own.url, user, ephemeralBytesMax: 8_192 }));
    for (const one of [alice, bob]) open.add(one);
    const room = await openRoom(alice);
    const his = bob.room(room.id);
    await until("bob is there", () => his.state === "live");
    const heard = his.once("ephemeral");
    room.ephemeral("caret", "x".repeat(8_000));
    assert.equal((await heard).data.length, 8_000);
    assert.throws(() => room.ephemeral("caret", "x".repeat(8_191)), { code: "too_big" });
    for (const one of [alice, bob]) one.close();
    await own.stop();
  });

  test("is thrown by connect of a device's name", () => {
    for (const device of [`phone ${HALF}`, 7, {}]) assert.throws(() => client("alice", { device }), { name: "TypeError", message: /`device`/ });
  });
});

describe("what only a server can know to be malformed", () => {
  for (const [what, act] of Object.entries({
    "a command that it does not know": (room) => room.command("dance"),
    "a field that it does not know": (room) => room.command("post_message", { text: "x", colour: "red" }),
  })) {
    test(`is refused and keeps nothing else from being said: ${what}`, async () => {
      const [alice, bob] = [client("alice"), client("bob")];
      const room = await openRoom(alice);
      const heard = [];
      const his = bob.room(room.id);
      his.on("event", ({ name, data }) => name === "MessagePosted" && heard.push(data.text));
      await until("bob is there", () => his.state === "live");
      const states = new Set();
      alice.on("status", ({ state }) => states.add(state));
      proxy.cut();
      const refused = Array.from({ length: COUNT }, () => act(room));
      const good = [room.post("said behind them"), room.post("and then")];
      proxy.restore();
      await Promise.all(refused.map((one) => assert.rejects(one, (error) => error instanceof Rejected && error.code === "malformed")));
      await Promise.all(good);
      await until("bob hears it", () => heard.length === 2);
      assert.deepEqual(heard, ["said behind them", "and then"]);
      assert.ok(!states.has("closed"), "the line never ended for good");
      assert.equal(alice.pending.length, 0);
    });
  }

  test("comes back later and later where it goes on, and a hello that is none does not", async (context) => {
    context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
    for (const greets of [true, false]) {
      const opened = [];
      const connection = new Connection({
        url: "http://server.test", session: "s", token: async () => undefined, fetch: async () => ({ ok: true }),
        transports: [{
          name: "socket",
          open: ({ message, closed }) => {
            opened.push(Date.now());
            queueMicrotask(() => {
              if (greets) message({ type: "ready", rooms: [], reconnect: { base_ms: 500, cap_ms: 15_000 }, heartbeat_ms: 1e9 });
              closed({ code: 4500, reason: "" });
            });
            return { send: () => {}, close: () => {} };
          },
        }],
      }, { status: () => {}, message: () => {} });
      connection.start();
      for (let part = 0; part < 3_000; part += 1) {
        context.mock.timers.tick(100);
        for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
      }
      if (greets) assert.ok(opened.length > 5 && opened.length < 200, `opened ${opened.length} times in 5 minutes`);
      else assert.deepEqual([opened.length, connection.status.state, connection.status.code], [1, "closed", 4500]);
      connection.stop();
    }
  });
});
