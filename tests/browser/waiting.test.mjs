// Commands that wait: whatever they wait for comes, and none is sent that somebody has given up.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { Outbox } from "../../src/web/ui/client/outbox.js";
import { launch } from "./browser.mjs";
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

describe("a clock that is set back", () => {
  test("leaves what waits in its order, also after a reload", async () => {
    const store = memoryStore();
    const frame = (id) => ({ type: "command", id, room: "r", name: "post_message", data: { text: id } });
    let now = 10_000;
    const load = async (sent = []) => {
      const outbox = new Outbox({ store, owner: "tab", send: ({ id }) => sent.push(id), now: () => now });
      await outbox.adopt(() => true);
      return outbox;
    };
    for (const id of ["a", "b", "c"]) {
      const outbox = await load();
      outbox.add(frame(id)).catch(() => {});
      outbox.close();
      now -= 1_000;
    }
    const sent = [];
    const outbox = await load(sent);
    outbox.ready();
    await until("all are sent", () => sent.length === 3);
    assert.deepEqual(sent, ["a", "b", "c"]);
    outbox.close();
  });
});

describe("what was taken over of another tab", () => {
  const frame = (id) => ({ type: "command", id, room: "r", name: "post_message", data: { text: id } });

  test("is not sent if it was given up there meanwhile", async () => {
    const store = memoryStore();
    const first = new Outbox({ store, owner: "first", send: () => {} });
    for (const id of ["a", "b"]) first.add(frame(id)).catch(() => {});
    const sent = [];
    const second = new Outbox({ store, owner: "second", send: ({ id }) => sent.push(id) });
    await second.adopt(() => true);
    first.discard("a");
    const settled = [];
    second.on("settled", ({ entry, ack, refusal }) => settled.push([entry.id, ack ?? refusal]));
    second.ready();
    await until("the other is sent", () => sent.includes("b"));
    assert.deepEqual([sent, settled], [["b"], [["a", undefined]]]);
    for (const outbox of [first, second]) outbox.close();
  });

  test("is this tab's in the store, too", async () => {
    const entries = new Map();
    const store = { list: () => [...entries.values()].map((text) => JSON.parse(text)), put: (entry) => entries.set(entry.id, JSON.stringify(entry)), remove: (id) => entries.delete(id) };
    const first = new Outbox({ store, owner: "first", send: () => {} });
    first.add(frame("a")).catch(() => {});
    first.close();
    const second = new Outbox({ store, owner: "second", send: () => {} });
    await second.adopt((owner) => owner === "first");
    const again = new Outbox({ store, owner: "first", send: () => {} });
    await again.adopt((owner) => owner === "first");
    assert.deepEqual([second, again].map((outbox) => outbox.entries.length), [1, 0]);
    for (const outbox of [second, again]) outbox.close();
  });
});

describe("in Chromium, what waits in a tab", () => {
  let browser;
  let context;

  before(async () => {
    browser = await launch();
    context = await browser.newContext();
    // How often it was asked which tabs live.
    await context.addInitScript(() => {
      globalThis.asked = 0;
      const query = navigator.locks.query.bind(navigator.locks);
      navigator.locks.query = () => query().finally(() => { globalThis.asked += 1; });
    });
  });

  afterEach(() => proxy.refuse());
  after(() => browser.close());

  const connectIn = (page, options) => page.evaluate(async (given) => {
    const { connect: open } = await import("/client.js");
    globalThis.client = open(given);
  }, options);
  const waiting = (page) => page.evaluate(() => globalThis.client.pending.map(({ frame }) => frame.data.text));

  async function tab(options) {
    const page = await context.newPage();
    await page.goto(`${proxy.url}/client.d.ts`);
    await connectIn(page, options);
    await until("the line stands", () => page.evaluate(() => globalThis.client.status.state === "live"));
    return page;
  }

  /** Something that waits in a page, whose line is refused meanwhile. */
  const write = (page, room) => page.evaluate((id) => { globalThis.client.command(id, "post_message", { text: "mine" }).catch(() => {}); }, room);

  test("stays its own while that is loaded anew", async () => {
    const options = { user: "alice", transports: ["socket"] };
    const [first, second] = [await tab(options), await tab(options)];
    const room = await openRoom(client("bob"));
    proxy.refuse("/socket");
    await first.evaluate(() => dispatchEvent(new Event("offline")) && dispatchEvent(new Event("online")));
    await until("the line is gone", () => second.evaluate(() => globalThis.client.status.state !== "live"));
    await write(second, room);
    const asked = await first.evaluate(() => globalThis.asked);
    await second.reload();
    await connectIn(second, options);
    await until("it is known which tabs live", () => first.evaluate((before) => globalThis.asked > before, asked));
    assert.deepEqual([await waiting(first), await waiting(second)], [[], ["mine"]]);
    for (const page of [first, second]) await page.close();
  });

  test("stays its own while another has a line of its own", async () => {
    const options = { user: "carol", transports: ["socket"], share: false };
    const first = await tab(options);
    const room = await openRoom(client("bob"));
    proxy.refuse("/socket");
    await first.evaluate(() => dispatchEvent(new Event("offline")) && dispatchEvent(new Event("online")));
    await until("the line is gone", () => first.evaluate(() => globalThis.client.status.state !== "live"));
    await write(first, room);
    const second = await context.newPage();
    await second.goto(`${proxy.url}/client.d.ts`);
    await connectIn(second, options);
    await until("it is known which tabs live", () => second.evaluate(() => globalThis.asked > 0 || globalThis.client.pending.length > 0));
    assert.deepEqual([await waiting(first), await waiting(second)], [["mine"], []]);
    await first.close();
    const third = await context.newPage();
    await third.goto(`${proxy.url}/client.d.ts`);
    await connectIn(third, options);
    await until("the next one has what it left", async () => (await waiting(third)).length === 1);
    for (const page of [second, third]) await page.close();
  });
});
