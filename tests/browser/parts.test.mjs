// The client's parts that need no server.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Backoff } from "../../src/web/ui/client/backoff.js";
import { Connection } from "../../src/web/ui/client/connection.js";
import { Cursor } from "../../src/web/ui/client/cursor.js";
import { Emitter } from "../../src/web/ui/client/emitter.js";
import { Outbox, QUEUE_LEN_MAX, WINDOW_MAX } from "../../src/web/ui/client/outbox.js";
import { defaultStore, localStore, memoryStore } from "../../src/web/ui/client/store.js";
import { eventsOf } from "../../src/web/ui/client/stream.js";

test("backoff doubles up to its cap, with full jitter, and starts over after a success", () => {
  const almostOne = 1 - 2 ** -30;
  const backoff = new Backoff({ random: () => almostOne });
  backoff.greeted({ base_ms: 100, cap_ms: 1_000 });
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => Math.round(backoff.next())), [100, 200, 400, 800, 1000, 1000]);
  backoff.succeeded();
  assert.equal(Math.round(backoff.next()), 100);
  assert.equal(new Backoff({ random: () => 0 }).next(), 0);
});

test("after a drain a client comes back in its slot, and once only", () => {
  let now = 1_000;
  const backoff = new Backoff({ random: () => 0, now: () => now });
  backoff.drain({ in_ms: 2_000, slot_ms: 350 });
  now = 3_000; // the connection was closed then
  assert.equal(backoff.next(), 350);
  assert.equal(backoff.next(), 0, "then the ordinary backoff goes on");
});

test("a cursor tells what is next, what is known and what is missing", () => {
  const cursor = new Cursor();
  assert.deepEqual(cursor.fields(), {});
  assert.equal(cursor.take(40), "next", "the first sets the place");
  assert.equal(cursor.take(41), "next");
  assert.equal(cursor.take(41), "known");
  assert.equal(cursor.take(43), "gap");
  assert.equal(cursor.last, 41, "a gap moves nothing");
  cursor.epoch = "e.1";
  assert.deepEqual(cursor.fields(), { epoch: "e.1", after: 41 });
  cursor.clear();
  assert.deepEqual(cursor.fields(), {});
});

test("a listener that throws keeps nobody else from hearing", () => {
  const emitter = new Emitter();
  const heard = [];
  const thrown = [];
  globalThis.reportError = (error) => thrown.push(error.message);
  emitter.on("x", () => { throw new Error("careless"); });
  const off = emitter.on("x", (value) => heard.push(value));
  emitter.emit("x", 1);
  off();
  emitter.emit("x", 2);
  assert.deepEqual(heard, [1]);
  assert.deepEqual(thrown, ["careless", "careless"]);
  delete globalThis.reportError;
});

test("an event stream is read whatever the pieces it comes in", async () => {
  const text = "retry: 250\nid: a\ndata: {\"a\":1}\ndata: {\"é\":2}\n\n: a comment\n\nevent: close\ndata: {}\n\n";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 7, 1_000]) {
    const pieces = new ReadableStream({
      start(to) {
        for (let at = 0; at < bytes.length; at += size) to.enqueue(bytes.slice(at, at + size));
        to.close();
      },
    });
    const events = [];
    for await (const event of eventsOf(pieces)) events.push(event);
    assert.deepEqual(events, [{ event: "message", data: "{\"a\":1}\n{\"é\":2}" }, { event: "close", data: "{}" }], `in pieces of ${size}`);
  }
});

/** A `Storage` as browsers have it, with room for so many characters. */
function storage(charsMax = Infinity) {
  const items = new Map();
  return {
    get length() { return items.size; },
    key: (index) => [...items.keys()][index] ?? null,
    getItem: (key) => items.get(key) ?? null,
    setItem(key, value) {
      const chars = [...items].reduce((sum, [name, held]) => sum + name.length + held.length, 0);
      if (chars + key.length + value.length > charsMax) throw new Error("the storage is full");
      items.set(key, value);
    },
    removeItem: (key) => void items.delete(key),
  };
}

test("stores keep users apart and survive what is not theirs", () => {
  const place = storage();
  const [alice, bob] = [localStore("alice", place), localStore("bob", place)];
  alice.put({ id: "1", text: "hers" });
  bob.put({ id: "1", text: "his" });
  place.setItem("alice:broken", "{");
  assert.deepEqual(alice.list(), [{ id: "1", text: "hers" }]);
  alice.remove("1");
  assert.deepEqual([alice.list(), bob.list().length], [[], 1]);
});

test("a storage that is full gives back what it holds", () => {
  const place = storage(90);
  localStore("s", place).put({ id: "1", text: "kept before" });
  place.setItem("filling", "x".repeat(90 - "s:1".length - place.getItem("s:1").length - "filling".length));
  const had = Object.getOwnPropertyDescriptor(globalThis, "localStorage");
  Object.defineProperty(globalThis, "localStorage", { value: place, configurable: true });
  try {
    const store = defaultStore("s");
    assert.throws(() => store.put({ id: "2" }), /full/);
    assert.deepEqual(store.list(), [{ id: "1", text: "kept before" }]);
  } finally {
    delete globalThis.localStorage;
    if (had) Object.defineProperty(globalThis, "localStorage", had);
  }
});

const frame = (id) => ({ type: "command", id, room: "r", name: "post_message", data: { text: id } });

test("what waits is sent in order at each new line, and settled by its answer", async () => {
  const sent = [];
  const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: ({ id }) => sent.push(id) });
  const answers = ["a", "b"].map((id) => outbox.add(frame(id)));
  assert.deepEqual(sent, []);
  outbox.ready();
  outbox.lost();
  outbox.ready();
  assert.deepEqual(sent, ["a", "b", "a", "b"]);
  assert.equal(outbox.answered({ type: "ack", id: "b", revision: 2 }), true);
  assert.equal(outbox.answered({ type: "ack", id: "z" }), false, "somebody else's");
  outbox.answered({ type: "reject", id: "a", code: "rule", message: "room_closed", detail: "the room is closed" });
  assert.equal((await answers[1]).revision, 2);
  await assert.rejects(answers[0], { code: "rule", rule: "room_closed", message: "the room is closed" });
  assert.equal(outbox.entries.length, 0);
});

test("a server that asks to wait is asked again, in order", async () => {
  const sent = [];
  const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: ({ id }) => sent.push(id) });
  outbox.ready();
  const first = outbox.add(frame("a"));
  outbox.answered({ type: "reject", id: "a", code: "rate_limited", retry: true, after_ms: 30 });
  const second = outbox.add(frame("b"));
  assert.deepEqual(sent, ["a"], "the second waits too");
  outbox.send = ({ id }) => { sent.push(id); queueMicrotask(() => outbox.answered({ type: "ack", id })); };
  await Promise.all([first, second]);
  assert.deepEqual(sent, ["a", "a", "b"]);
});

test("bounds are told: too many, too big, a full storage", async () => {
  const outbox = new Outbox({ store: localStore("s", storage(10)), owner: "tab", send: () => {} });
  const full = outbox.once("storage");
  for (let count = 0; count < QUEUE_LEN_MAX; count += 1) outbox.add(frame(String(count))).catch(() => {});
  assert.match((await full).message, /full/);
  await assert.rejects(outbox.add(frame("more")), { code: "queue_full" });
  outbox.close();
  outbox.messageBytesMax = 20;
  await assert.rejects(outbox.add(frame("big")), { code: "too_big" });
});

test("what waits is kept if a store has taken it that outlives the page", async () => {
  for (const [store, isKept] of [[localStore("s", storage()), true], [localStore("s", storage(10)), false], [memoryStore(), false]]) {
    const outbox = new Outbox({ store, owner: "tab", send: () => {} });
    outbox.add(frame("a")).catch(() => {});
    outbox.add(frame("b"), { isStored: false }).catch(() => {});
    await new Promise(setImmediate);
    assert.deepEqual([outbox.isKept("a"), outbox.isKept("b")], [isKept, false]);
    outbox.close();
  }
});

test("a command that turns out to be too long for the server is refused and keeps no other", async () => {
  const store = memoryStore();
  const left = { id: "left", owner: "tab", frame: frame("left behind and far too long"), createdAt: Date.now(), attempted: false, state: "waiting" };
  store.put({ ...left, frame: { ...left.frame, id: "left" } });
  const sent = [];
  const outbox = new Outbox({ store, owner: "tab", send: ({ id }) => sent.push(id) });
  await outbox.adopt(() => true);
  const long = outbox.add({ ...frame("long"), data: { text: "x".repeat(200) } });
  const short = outbox.add(frame("short"));
  const refusals = [];
  outbox.on("settled", ({ entry, refusal }) => refusals.push([entry.id, refusal?.code]));
  outbox.messageBytesMax = JSON.stringify(frame("short")).length;
  outbox.ready();
  await assert.rejects(long, { code: "too_big" });
  assert.deepEqual(sent, ["short"]);
  assert.deepEqual(refusals, [["left", "too_big"], ["long", "too_big"]]);
  outbox.answered({ type: "ack", id: "short" });
  await short;
  assert.deepEqual(store.list(), []);
});

test("an id that waits already is refused, and the first keeps its answer", async () => {
  const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: () => {} });
  const first = outbox.add(frame("a"));
  await assert.rejects(outbox.add(frame("a")), { code: "id_in_use" });
  outbox.answered({ type: "ack", id: "a", revision: 7 });
  assert.equal((await first).revision, 7);
});

test("as long as the server names a time a command is asked again, and else not for ever", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  for (const [afterMs, isGivenUp] of [[1_000, false], [undefined, true]]) {
    let sent = 0;
    const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: () => { sent += 1; } });
    outbox.ready();
    let failed = null;
    outbox.add(frame("a")).catch(({ code }) => { failed = code; });
    for (let round = 0; round < 40; round += 1) {
      const before = sent;
      outbox.answered({ type: "reject", id: "a", code: "token_expired", retry: true, after_ms: afterMs });
      await Promise.resolve();
      for (let second = 0; second < 31 && sent === before; second += 1) context.mock.timers.tick(1_000);
    }
    assert.equal(failed, isGivenUp ? "token_expired" : null);
    assert.equal(outbox.entries.length, isGivenUp ? 0 : 1);
    outbox.close();
  }
});

test("a queue longer than the server takes at once is taken, in order, and few are refused", async (context) => {
  const [LATENCY_MS, PER_SECOND, BURST] = [20, 10, 100];
  context.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const ids = Array.from({ length: 300 }, (_, number) => `c${number}`);
  const [taken, failed] = [[], []];
  let [tokens, at, refused, onTheirWay, most] = [BURST, Date.now(), 0, 0, 0];
  // As the server does: a burst, and then so many a second.
  const answer = ({ id }) => {
    onTheirWay -= 1;
    tokens = Math.min(BURST, tokens + (Date.now() - at) * PER_SECOND / 1_000);
    at = Date.now();
    if (tokens >= 1) {
      tokens -= 1;
      taken.push(id);
      return outbox.answered({ type: "ack", id });
    }
    refused += 1;
    const afterMs = Math.ceil((1 - tokens) * 1_000 / PER_SECOND);
    return outbox.answered({ type: "reject", id, code: "rate_limited", retry: true, after_ms: afterMs });
  };
  const outbox = new Outbox({
    store: memoryStore(), owner: "tab",
    send: (sent) => { onTheirWay += 1; most = Math.max(most, onTheirWay); setTimeout(() => answer(sent), LATENCY_MS); },
  });
  const settled = ids.map((id) => outbox.add(frame(id)).catch(({ code }) => failed.push([id, code])));
  outbox.ready();
  for (let step = 0; step < 10_000 && outbox.entries.length > 0; step += 1) context.mock.timers.tick(10);
  outbox.close();
  await Promise.all(settled);
  assert.deepEqual(failed, []);
  assert.deepEqual(taken, ids);
  assert.ok(most <= WINDOW_MAX, `${most} on their way at once`);
  assert.ok(refused < 200, `${refused} refused`);
});

test("a queue stays in order where a refusal comes back sooner than an ack, over a slow line", async (context) => {
  const [LATENCY_MS, ACK_MS, PER_SECOND, BURST] = [100, 5, 10, 10];
  context.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const ids = Array.from({ length: 120 }, (_, number) => `c${number}`);
  const taken = [];
  let [tokens, at, refused] = [BURST, Date.now(), 0];
  const answer = (message, afterMs) => setTimeout(() => outbox.answered(message), afterMs);
  const arrive = ({ id }) => {
    tokens = Math.min(BURST, tokens + (Date.now() - at) * PER_SECOND / 1_000);
    at = Date.now();
    if (tokens >= 1) {
      tokens -= 1;
      taken.push(id);
      // Once it is on the disk.
      answer({ type: "ack", id }, ACK_MS + LATENCY_MS);
    } else {
      refused += 1;
      answer({ type: "reject", id, code: "rate_limited", retry: true, after_ms: Math.ceil((1 - tokens) * 1_000 / PER_SECOND) }, LATENCY_MS);
    }
  };
  const outbox = new Outbox({ store: memoryStore(), owner: "tab", send: (sent) => setTimeout(() => arrive(sent), LATENCY_MS) });
  const settled = ids.map((id) => outbox.add(frame(id)));
  outbox.ready();
  for (let step = 0; step < 40_000 && outbox.entries.length > 0; step += 1) context.mock.timers.tick(5);
  await Promise.all(settled);
  assert.deepEqual(taken, ids);
  assert.ok(refused < 60, `${refused} refused`);
});

test("a tab takes over what another left, and only what it is meant to", async () => {
  const store = memoryStore();
  const gone = new Outbox({ store, owner: "gone", send: () => {} });
  gone.add(frame("x")).catch(() => {});
  gone.close();
  const sent = [];
  const outbox = new Outbox({ store, owner: "here", send: ({ id }) => sent.push(id) });
  outbox.ready();
  await outbox.adopt((owner) => owner === "here");
  assert.deepEqual(sent, []);
  await outbox.adopt((owner) => owner === "gone");
  assert.deepEqual(sent, ["x"]);
});

test("what was written within a millisecond is in order after a reload too, however the store lists it", async () => {
  const ids = Array.from({ length: 20 }, (_, number) => `c${number}`);
  const store = memoryStore();
  const gone = new Outbox({ store, owner: "tab", send: () => {}, now: () => 1_000 });
  for (const id of ids) gone.add(frame(id)).catch(() => {});
  gone.close();
  const sent = [];
  const list = () => store.list().reverse();
  const outbox = new Outbox({ store: { ...store, list }, owner: "tab", send: ({ id }) => sent.push(id), now: () => 1_001 });
  outbox.ready();
  await outbox.adopt(() => true);
  assert.deepEqual(sent, ids);
});

test("an id that no server takes is refused at once, and one that a store holds once a line stands", async () => {
  const store = memoryStore();
  store.put({ id: "my id", owner: "tab", frame: frame("my id"), createdAt: Date.now(), attempted: true, state: "waiting" });
  const sent = [];
  const outbox = new Outbox({ store, owner: "tab", send: ({ id }) => sent.push(id) });
  for (const id of ["", "an id", "é", "x".repeat(129), 12, null]) await assert.rejects(outbox.add(frame(id)), { code: "malformed" });
  await outbox.adopt(() => true);
  const settled = outbox.once("settled");
  outbox.ready();
  assert.equal((await settled).refusal.code, "malformed");
  outbox.add(frame("x".repeat(128))).catch(() => {});
  assert.equal(sent.length, 1);
  assert.deepEqual(store.list().map(({ id }) => id), ["x".repeat(128)]);
  outbox.close();
});

test("what has expired is told at each load, until it is dealt with", async () => {
  const store = memoryStore();
  store.put({ id: "old", owner: "tab", frame: frame("old"), createdAt: Date.now() - 4 * 86_400_000, attempted: false, state: "waiting" });
  for (let load = 0; load < 3; load += 1) {
    const outbox = new Outbox({ store, owner: "tab", send: () => assert.fail("it is not sent") });
    const told = [];
    outbox.on("expired", ({ id }) => told.push(id));
    outbox.ready();
    await outbox.adopt(() => true);
    assert.deepEqual(told, ["old"], `load ${load}`);
    outbox.close();
  }
});

const GREETING = { type: "ready", rooms: [], reconnect: { base_ms: 500, cap_ms: 30_000 }, heartbeat_ms: 1e9 };

/** A connection over transports that are played: `open(link)` is what one does when it is opened. */
function played(...transports) {
  const line = { send: () => {}, close: () => {} };
  const opened = []; // which, and after how many seconds
  const connection = new Connection({
    url: "http://server.test", session: "s", token: async () => undefined, fetch: async () => ({ ok: true }),
    transports: transports.map(({ name, open, ...more }) => ({
      name, ...more,
      open: (link) => {
        opened.push([name, Date.now() / 1_000]);
        queueMicrotask(() => open(link));
        return line;
      },
    })),
  }, { status: () => {}, message: () => {} });
  return { connection, opened };
}

/** Lets this time pass on a mocked clock, with what promises do meanwhile. */
async function pass(context, seconds) {
  for (let part = 0; part < seconds * 10; part += 1) {
    context.mock.timers.tick(100);
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  }
}

const MOCKED = { apis: ["setTimeout", "setInterval", "Date"] };
const stays = ({ message }) => message(GREETING);

test("a first choice that answers and then fails is tried less and less often", async (context) => {
  context.mock.timers.enable(MOCKED);
  const { connection, opened } = played(
    { name: "socket", isThere: async () => true, open: ({ closed }) => closed({ code: 1006, reason: "" }) },
    { name: "stream", open: stays },
  );
  connection.start();
  await pass(context, 3_600);
  connection.stop();
  const minutes = opened.filter(([name]) => name === "socket").map(([, at]) => Math.round(at / 60));
  assert.deepEqual([...new Set(minutes)], [0, 1, 3, 7, 15, 31]);
});

test("a transport whose lines are cut as soon as they stand has failed", async (context) => {
  context.mock.timers.enable(MOCKED);
  const { connection, opened } = played({
    name: "socket", isThere: async () => false,
    open: ({ message, closed }) => {
      message(GREETING);
      setTimeout(() => closed({ code: 1006, reason: "" }), 300);
    },
  }, { name: "stream", open: stays });
  connection.start();
  await pass(context, 60);
  assert.deepEqual(opened.map(([name]) => name), ["socket", "socket", "stream"]);
  assert.equal(connection.status.state, "live");
  connection.stop();
});

test("a line that a server ends by a word of its own has not failed", async (context) => {
  context.mock.timers.enable(MOCKED);
  const { connection, opened } = played({
    name: "socket", isThere: async () => true,
    open: ({ message, closed }) => {
      message(GREETING);
      if (opened.length < 4) closed({ code: 4001, reason: "drain" });
    },
  }, { name: "stream", open: stays });
  connection.start();
  await pass(context, 60);
  assert.deepEqual(opened.map(([name]) => name), ["socket", "socket", "socket", "socket"]);
  connection.stop();
});

test("nor has one that it ends so before its greeting", async (context) => {
  context.mock.timers.enable(MOCKED);
  for (const code of [4506, 4004, 4013, 4029]) {
    const { connection, opened } = played({
      name: "socket", isThere: async () => true,
      open: ({ message, closed }) => (opened.length < 4 ? closed({ code, reason: "" }) : message(GREETING)),
    }, { name: "stream", open: stays });
    connection.start();
    await pass(context, 60);
    assert.deepEqual(opened.map(([name]) => name), ["socket", "socket", "socket", "socket"], String(code));
    assert.equal(connection.status.state, "live");
    connection.stop();
  }
});

test("a line that nothing comes over is lost, though the clock stands still or a machine slept", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  let [second, ticking] = [0, null];
  for (const clock of [Date, performance]) context.mock.method(clock, "now", () => (clock === ticking ? second * 1_000 : 0));
  for (ticking of [Date, performance]) {
    second = 0;
    const { connection, opened } = played({ name: "socket", open: ({ message }) => message({ ...GREETING, heartbeat_ms: 10_000 }) });
    connection.start();
    for (; opened.length < 2 && second < 60; second += 1) await pass(context, 1);
    connection.stop();
    assert.ok(second > 25 && second < 30, `after ${second} s`);
  }
});

test("a stream that something on the way holds back is left for polls: none of its events come, or nothing at all", async (context) => {
  context.mock.timers.enable(MOCKED);
  for (const [what, heartbeatMs, say] of [
    ["an own event", 1e9, (link) => link.message({ type: "ack", id: "c", room: "r", revision: 7 })],
    ["anything", 10_000, () => {}],
  ]) {
    let link;
    const { connection, opened } = played({
      name: "stream", mayBeHeld: true,
      open: (made) => {
        link = made;
        link.heard();
        link.message({ ...GREETING, heartbeat_ms: heartbeatMs });
      },
    }, { name: "poll", open: stays });
    connection.send({ type: "subscribe", id: "s", room: "r" });
    connection.start();
    await pass(context, 1);
    link.message({ type: "subscribed", id: "s", room: "r", epoch: "e.0", head: 5, how: "events" });
    link.message({ type: "event", room: "r", revision: 5 });
    link.message({ type: "ack", id: "b", room: "r", revision: 6 });
    await pass(context, 1);
    link.message({ type: "event", room: "r", revision: 6 });
    await pass(context, 10);
    assert.equal(opened.length, 1, "that one came");
    say(link);
    await pass(context, 50);
    assert.deepEqual(opened.map(([name]) => name), ["stream", "poll"], what);
    connection.stop();
  }
});

test("outside of a page a client says that it needs the server's address", () => {
  assert.throws(() => connect({ user: "alice" }), /`url` is needed/);
});

test("the files that the README fetches from a server are all that there are", async () => {
  const root = path.resolve(import.meta.dirname, "../..");
  const readme = await readFile(path.join(root, "README.md"), "utf8");
  const listed = readme.match(/\/client\/\{([a-z,]+)\}\.js/)[1].split(",").map((name) => `${name}.js`);
  const files = await readdir(path.join(root, "src/web/ui/client"));
  assert.deepEqual(listed, files.filter((name) => name.endsWith(".js")).sort());
  assert.match(readme, /\/client\{\.js,\.d\.ts,\/protocol\.d\.ts\}/);
  assert.deepEqual(files.filter((name) => !name.endsWith(".js")), ["protocol.d.ts"]);
});
