// client.js in Node against a real server process.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Rejected, connect, memoryStore } from "../../src/web/ui/client.js";
import { transportsOf } from "../../src/web/ui/client/transports.js";
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
  made.on("problem", (error) => { throw error; });
  open.add(made);
  return made;
}

let rooms = 0;
async function openRoom(owner) {
  const id = `room-${(rooms += 1)}`;
  await owner.command(id, "open_room", { title: `Room ${rooms}` });
  return id;
}

/** Collects what a room tells, by revision; fails on what comes twice or out of order. */
function collect(room) {
  const events = [];
  room.on("reset", () => events.splice(0));
  room.on("event", (event) => {
    const last = events.at(-1);
    assert.ok(!last || event.revision === last.revision + 1, `${last?.revision} is followed by ${event.revision}`);
    events.push(event);
  });
  return events;
}

const texts = (events) => events.filter(({ name }) => name === "MessagePosted").map(({ data }) => data.text);

describe("a client", () => {
  test("opens a room, speaks, and is heard by another", async () => {
    const [alice, bob] = [client("alice"), client("bob")];
    const id = await openRoom(alice);
    const heard = collect(bob.room(id));
    await bob.room(id).join();
    const ack = await alice.room(id).post("good evening");
    assert.equal(ack.type, "ack");
    await until("bob hears it", () => texts(heard).includes("good evening"));
    assert.equal(heard.find(({ revision }) => revision === ack.revision).by, "alice");
  });

  test("is told the server's no with its stable word", async () => {
    const alice = client("alice");
    const id = await openRoom(alice);
    await assert.rejects(client("mallory").command(id, "post_message", { text: "hi" }), (error) => {
      assert.ok(error instanceof Rejected);
      assert.equal(error.code, "not_a_member");
      return true;
    });
  });

  test("pages through the past", async () => {
    const alice = client("alice");
    const id = await openRoom(alice);
    const room = alice.room(id);
    for (let count = 0; count < 12; count += 1) await room.post(`message ${count}`);
    const page = await room.history({ limit: 5 });
    assert.equal(page.events.length, 5);
    assert.equal(page.more, true);
    const before = await room.history({ before: page.events[0].revision, limit: 100 });
    assert.equal(before.events[0].revision, 0);
    assert.equal(before.more, false);
  });
});

for (const transport of ["socket", "stream", "poll"]) {
  describe(`over ${transport}, after an interruption, a client`, () => {
    const through = (user) => client(user, { transports: [transport] });

    test("resumes without loss or repetition, and its commands have one effect", async () => {
      const [alice, bob] = [through("alice"), through("bob")];
      const id = await openRoom(alice);
      const heard = collect(bob.room(id));
      await until("bob is live", () => bob.room(id).state === "live");
      assert.equal(bob.status.transport, transport);
      const sent = [];
      for (let round = 0; round < 10; round += 1) {
        sent.push(alice.room(id).post(`round ${round} a`));
        if (round % 2 === 0) proxy.cut();
        sent.push(alice.room(id).post(`round ${round} b`));
        proxy.restore();
        await sent.at(-1);
      }
      await Promise.all(sent);
      const want = Array.from({ length: 10 }, (_, round) => [`round ${round} a`, `round ${round} b`]).flat();
      await until("bob has heard all", () => texts(heard).length >= want.length);
      assert.deepEqual(texts(heard), want);
    });

    test("finds its place after the server was killed", async () => {
      const [alice, bob] = [through("alice"), through("bob")];
      const id = await openRoom(alice);
      const heard = collect(bob.room(id));
      await until("bob is live", () => bob.room(id).state === "live");
      const sent = Array.from({ length: 30 }, (_, count) => alice.room(id).post(`before ${count}`));
      await sent[10];
      await server.kill();
      sent.push(...Array.from({ length: 20 }, (_, count) => alice.room(id).post(`while away ${count}`)));
      await server.up();
      await Promise.all(sent);
      await until("bob has heard all", () => texts(heard).length >= 50);
      assert.equal(new Set(texts(heard)).size, 50);
    });
  });
}

describe("a client that wants a room's state in place of a long past", () => {
  test("gets it again when it comes back after much was said", async () => {
    const [alice, bob] = [client("alice", { url: server.url }), client("bob")];
    const id = await openRoom(alice);
    const room = bob.room(id, { catchUp: "state" });
    await until("bob is live", () => room.state === "live");
    proxy.cut();
    await Promise.all(Array.from({ length: 120 }, (_, count) => alice.room(id).post(`while away ${count}`)));
    const state = room.once("state");
    proxy.restore();
    assert.ok((await state).revision >= 120);
  });
});

describe("where a WebSocket does not get through", () => {
  test("a client falls back, and comes back to it without losing its place", async () => {
    proxy.refuse("/socket");
    const [alice, bob] = [client("alice"), client("bob", { transports: ["socket", "stream"] })];
    const id = await openRoom(alice);
    assert.equal(alice.status.transport, "stream");
    const heard = collect(bob.room(id));
    await alice.room(id).post("over a stream");
    await until("bob hears it", () => texts(heard).length === 1);
    proxy.refuse();
    proxy.cut();
    proxy.restore();
    await alice.room(id).post("after the cut");
    await until("bob hears that too", () => texts(heard).length === 2);
    assert.deepEqual(texts(heard), ["over a stream", "after the cut"]);
  });
});

describe("where a WebSocket opens and nothing passes over it", () => {
  test("it counts as not there", async () => {
    const [{ isThere }] = transportsOf({ transports: ["socket"], WebSocket: globalThis.WebSocket });
    assert.equal(await isThere(proxy.url), true);
    proxy.isDeaf = true;
    const answer = isThere(proxy.url);
    await until("something was said over it", () => proxy.unheardCount > 0);
    proxy.cut();
    assert.equal(await answer, false);
    proxy.isDeaf = false;
    proxy.restore();
  });
});

describe("what a caller says that no server takes", () => {
  test("is the caller's to hear, and leaves the line as it is", async () => {
    const alice = client("alice");
    const id = await openRoom(alice);
    const room = alice.room(id);
    await until("it is live", () => room.state === "live");
    const { connection } = alice.greeting;
    for (let count = 0; count < 12; count += 1) {
      await assert.rejects(room.post("x", { id: `my id ${count}` }), { name: "ClientError", code: "malformed" });
      assert.throws(() => room.ephemeral("cursor-move", { count }), { name: "ClientError", code: "malformed" });
    }
    await room.post("still here");
    assert.equal(alice.greeting.connection, connection);
  });
});

describe("when history was replaced", () => {
  test("a client drops what it held and takes what is there now", async () => {
    const own = await Server.start();
    const made = connect({ url: own.url, user: "alice" });
    open.add(made);
    await made.command("past", "open_room", { title: "Past" });
    const room = made.room("past");
    const heard = collect(room);
    await room.post("in the backup");
    await own.run("backup", "create", "--data", own.data, "--store", `${own.root}/backups`);
    await room.post("after the backup");
    await until("it is heard", () => texts(heard).length === 2);
    await own.kill();
    await own.run("backup", "restore", "--store", `${own.root}/backups`, "latest", "--into", `${own.root}/restored`);
    const reset = room.once("reset");
    own.data = `${own.root}/restored`;
    await own.up();
    await reset;
    await until("what was cut is gone", () => texts(heard).join() === "in the backup");
    await room.post("and on it goes");
    await until("it goes on", () => texts(heard).join() === "in the backup,and on it goes");
    made.close();
    await own.stop();
  });
});

describe("people in a room", () => {
  test("are present, write, and leave", async () => {
    const [alice, bob] = [client("alice"), client("bob")];
    const id = await openRoom(alice);
    const [hers, his] = [alice.room(id), bob.room(id)];
    await until("both are present", () => hers.presence.count === 2 && his.presence.count === 2);
    assert.deepEqual([...hers.presence.members].sort(), ["alice", "bob"]);
    his.write();
    await until("alice sees bob write", () => hers.typing.includes("bob"));
    assert.deepEqual(his.typing, [], "and bob does not see himself");
    his.stopWriting();
    await until("he has stopped", () => hers.typing.length === 0);
    bob.close();
    await until("he is gone", () => hers.presence.count === 1);
  });

  test("have their read markers on all their devices", async () => {
    const [alice, phone, bob] = [client("alice"), client("alice"), client("bob")];
    const id = await openRoom(alice);
    await bob.room(id).join();
    phone.me.on("event", () => {});
    for (const device of [alice, phone]) await until("it is live", () => device.room(id).state === "live" && device.me.state !== "denied");
    await bob.room(id).post("one");
    await bob.room(id).post("two");
    await until("both count them", () => alice.room(id).unread === 2 && phone.room(id).unread === 2);
    alice.room(id).seen();
    assert.equal(alice.room(id).unread, 0);
    await until("the phone hears of it", () => phone.room(id).unread === 0);
    await bob.room(id).post("three");
    await until("only the new one is unread", () => phone.room(id).unread === 1);
    const tablet = client("alice");
    tablet.room(id);
    await until("a new device is told", () => tablet.room(id).unread === 1);
  });
});

describe("what was read in the last moment", () => {
  test("is told before the line is closed", async () => {
    const [alice, bob] = [client("alice"), client("bob", { url: server.url })];
    const id = await openRoom(alice);
    await bob.command(id, "join");
    const room = alice.room(id);
    await room.once("live");
    const { revision } = await bob.command(id, "post_message", { text: "the last" });
    await until("it is unread", () => room.unread === 1);
    room.seen();
    alice.close();
    const phone = client("alice");
    await phone.room(id).once("live");
    await until("another device knows", () => phone.room(id).seenRevision === revision);
  });
});

describe("what is unread after an interruption", () => {
  const interrupt = async (room, meanwhile) => {
    const isBack = room.once("live");
    proxy.cut();
    await meanwhile?.();
    proxy.restore();
    await isBack;
  };

  test("is nothing where all was seen, though the server has not heard of it yet", async () => {
    const [alice, bob] = [client("alice"), client("bob", { url: server.url })];
    const id = await openRoom(alice);
    await bob.command(id, "join");
    const room = alice.room(id);
    const marked = [];
    alice.me.on("event", ({ name, data }) => name === "ReadMarkerMoved" && data.room === id && marked.push(data.revision));
    await room.once("live");
    await bob.command(id, "post_message", { text: "one" });
    await until("it is unread", () => room.unread === 1);
    room.seen();
    await until("that is on record", () => marked.length === 1);
    const { revision } = await bob.command(id, "post_message", { text: "two" });
    await until("it is unread", () => room.unread === 1);
    room.seen();
    await interrupt(room);
    assert.deepEqual([room.unread, room.seenRevision], [0, revision]);
    await until("the server hears of it all the same", () => marked.at(-1) === revision);
    await interrupt(room, () => bob.command(id, "post_message", { text: "three" }));
    assert.equal(room.unread, 1);
  });

  test("is what was said meanwhile, also to who never said what they saw", async () => {
    const [alice, bob] = [client("alice"), client("bob", { url: server.url })];
    const id = await openRoom(alice);
    await bob.command(id, "join");
    await bob.command(id, "post_message", { text: "before the first visit" });
    const room = alice.room(id);
    await room.once("live");
    assert.equal(room.unread, 0);
    await bob.command(id, "post_message", { text: "heard" });
    await until("it is unread", () => room.unread === 1);
    await interrupt(room, async () => {
      for (let count = 0; count < 3; count += 1) await bob.command(id, "post_message", { text: "missed" });
    });
    assert.equal(room.unread, 4);
    room.seen();
    assert.equal(room.unread, 0);
  });
});

describe("a client of very many rooms", () => {
  // Together their places are longer than one message, and the cursor than an address may be.
  const ids = Array.from({ length: 450 }, (_, number) => `${"many-".repeat(24)}${number}`);

  before(async () => {
    const owner = client("owner", { url: server.url });
    await Promise.all(ids.map((id) => owner.command(id, "open_room", { title: "One of many" })));
    owner.close();
  });

  for (const transport of ["socket", "stream", "poll"]) {
    test(`comes back to all of them over a ${transport}`, async () => {
      const addresses = [];
      const fetch = (url, init) => {
        addresses.push(String(url).length);
        return globalThis.fetch(url, init);
      };
      const owner = client("owner", { transports: [transport], fetch });
      const states = new Set();
      owner.on("status", ({ state }) => states.add(state));
      const many = ids.map((id) => owner.room(id));
      const areLive = () => many.every(({ state }) => state === "live");
      await until("all are live", areLive, 60_000);
      const { connection } = owner.greeting;
      proxy.cut();
      await until("the line has met the cut", () => owner.greeting === null);
      proxy.restore();
      await until("it is back", () => owner.greeting && owner.greeting.connection !== connection, 60_000);
      await until("all are live again", areLive, 60_000);
      const { revision } = await many.at(-1).post("heard in the last");
      await until("it is heard", () => many.at(-1).cursor.after === revision);
      assert.ok(!states.has("closed"));
      assert.ok(Math.max(0, ...addresses) < 8_000, `an address of ${Math.max(...addresses)} bytes`);
      owner.close();
    });
  }

  test("takes a refusal that is not the server's own for no last word", async () => {
    let refused = 0;
    const fetch = (url, init) => {
      if (!/\/api\/(stream|poll)/.test(url) || refused >= 2) return globalThis.fetch(url, init);
      refused += 1;
      return Promise.resolve(new Response("<h1>Bad Request</h1>", { status: refused === 1 ? 400 : 403 }));
    };
    for (const transport of ["stream", "poll"]) {
      refused = 0;
      const alice = client("alice", { transports: [transport], fetch });
      await alice.once("ready");
      assert.equal(refused, 2);
      alice.close();
    }
  });
});

describe("a room that is left before the line stands", () => {
  test("is not followed on", async () => {
    let said;
    class Heard extends globalThis.WebSocket {
      send(text) {
        super.send(text);
        said?.(JSON.parse(text));
      }
    }
    const alice = client("alice", { WebSocket: Heard });
    const id = await openRoom(alice);
    const room = alice.room(id);
    await until("it is live", () => room.state === "live");
    const left = new Promise((resolve) => { alice.on("message", (message) => message.type === "unsubscribed" && resolve(message.room)); });
    said = ({ type }) => type === "hello" && room.unfollow();
    proxy.cut();
    proxy.restore();
    const ready = await alice.once("ready");
    assert.deepEqual(ready.rooms.map(({ room: one }) => one), [id]);
    assert.equal(await left, id);
  });
});

describe("a room for which there is no place", () => {
  test("is asked for again, until there is one", async () => {
    const own = await Server.start({ env: { DRAMATIS__LIMITS__USER__ROOMS_MAX: "1" } });
    const phone = connect({ url: own.url, user: "alice", device: "phone" });
    open.add(phone);
    await phone.command("narrow", "open_room", { title: "Narrow" });
    const held = phone.room("narrow");
    await until("the phone is in", () => held.state === "live");
    const laptop = connect({ url: own.url, user: "alice", device: "laptop" });
    open.add(laptop);
    // Followed before the line stands: its hello asks for the room.
    const room = laptop.room("narrow");
    const { rooms: [entry] } = await laptop.once("ready");
    assert.deepEqual([entry.how, entry.code], ["denied", "rate_limited"]);
    assert.equal(room.state, "joining", "it is not given up");
    held.unfollow();
    await until("the laptop is in", () => room.state === "live");
    for (const one of [phone, laptop]) one.close();
    await own.stop();
  });
});

describe("a room's name that is none", () => {
  test("is refused before it is sent, and keeps the line from nothing", async () => {
    const alice = client("alice");
    const id = await openRoom(alice);
    const heard = collect(alice.room(id));
    const denied = [];
    for (const [name, from] of [["my room"], [""], ["a/b"], ["x".repeat(129)], ["fine", { epoch: "none", after: 3 }], ["fine too", {}], ["also", { after: -1 }]]) {
      const room = alice.room(name, from);
      room.on("denied", ({ code, message }) => denied.push([name, code, message.length > 20]));
      room.seen(1);
      await assert.rejects(room.history(), { code: "malformed" });
      room.unfollow();
    }
    assert.deepEqual(denied.map(([, code, isSaid]) => [code, isSaid]), Array.from({ length: 7 }, () => ["malformed", true]));
    for (let count = 0; count < 12; count += 1) await assert.rejects(alice.command("my room", "join"), { code: "malformed" });
    alice.room("my room");
    proxy.cut();
    proxy.restore();
    await alice.room(id).post("back again");
    await until("it is heard", () => texts(heard).includes("back again"));
    assert.equal(alice.status.state, "live");
  });

  test("or that the server refused is not in the next hello", async () => {
    const hellos = [];
    const fetch = (url, init) => {
      if (init?.method === "POST" && String(url).includes("/api/poll")) hellos.push(JSON.parse(init.body).rooms.map(({ room }) => room));
      return globalThis.fetch(url, init);
    };
    const alice = client("alice", { transports: ["poll"], fetch });
    const id = await openRoom(alice);
    await until("the one is live", () => alice.room(id).state === "live");
    await until("the other is denied", () => alice.room("no-such-room").state === "denied");
    const before = hellos.length;
    proxy.cut();
    await until("a poll has met the cut", () => alice.status.state !== "live");
    proxy.restore();
    await until("it is back", () => hellos.length > before && alice.status.state === "live");
    assert.deepEqual(hellos.at(-1), [id]);
  });
});

describe("what waits", () => {
  test("is sent by the next client of the same store, once", async () => {
    const store = memoryStore();
    const alice = client("alice");
    const id = await openRoom(alice);
    proxy.cut();
    const first = client("alice", { store });
    first.command(id, "post_message", { text: "written offline" }).catch(() => {});
    first.close();
    assert.equal(store.list().length, 1);
    proxy.restore();
    const second = client("alice", { store });
    const [settled] = await Promise.all([second.once("settled"), until("it is answered", () => second.pending.length === 0)]);
    assert.equal(settled.refusal, undefined);
    assert.equal(store.list().length, 0);
    const { events } = await second.room(id).history();
    assert.deepEqual(texts(events), ["written offline"]);
  });

  test("is handed back when it is days old, and not sent until asked", async () => {
    const store = memoryStore();
    const alice = client("alice");
    const id = await openRoom(alice);
    const frame = { type: "command", id: "old-1", room: id, name: "post_message", data: { text: "old news" } };
    store.put({ id: "old-1", owner: "?", frame, createdAt: Date.now() - 4 * 86_400_000, attempted: false, state: "waiting" });
    const back = client("alice", { store });
    const expired = await back.once("expired");
    assert.equal(expired.frame.data.text, "old news");
    await back.room(id).history();
    assert.equal(back.pending[0].state, "expired");
    assert.deepEqual(texts((await back.room(id).history()).events), []);
    back.resend("old-1");
    await until("it is answered", () => back.pending.length === 0);
    assert.deepEqual(texts((await back.room(id).history()).events), ["old news"]);
    assert.equal(store.list().length, 0);
  });
});
