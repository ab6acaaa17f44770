// The tabs of a person, as pages of a real headless Chromium that hold a client and nothing else.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { launch } from "./browser.mjs";
import { Proxy, Server, until } from "./server.mjs";

let server;
let proxy;
let browser;
let contexts = [];
let bob;

before(async () => {
  server = await Server.start();
  proxy = await Proxy.start(server.port);
  browser = await launch();
  bob = connect({ url: server.url, user: "bob" });
});

after(async () => {
  bob.close();
  await browser.close();
  await proxy.stop();
  await server.stop();
});

afterEach(async () => {
  proxy.restore();
  for (const context of contexts) await context.close();
  contexts = [];
});

async function person() {
  const context = await browser.newContext();
  contexts.push(context);
  return context;
}

/** Connects a client in a page, as `client`; `hear(room, from)` notes the texts that come in `heard`. */
async function connectIn(page, options = { user: "alice" }) {
  await page.evaluate(async (given) => {
    const { connect: open } = await import("/client.js");
    globalThis.client = open(given);
    globalThis.heard = [];
    globalThis.hear = (id, from) => {
      const room = globalThis.client.room(id, from);
      room.on("event", ({ name, data }) => name === "MessagePosted" && globalThis.heard.push(data.text));
      return room;
    };
  }, options);
  return page;
}

/** One more tab; `prepare` runs in it before all else. */
async function tab(context, { options, prepare } = {}) {
  const page = await context.newPage();
  if (prepare) await page.addInitScript(prepare);
  await page.goto(`${proxy.url}/client.d.ts`);
  return connectIn(page, options);
}

const isLive = (page, room) => page.evaluate((id) => globalThis.client.room(id).state === "live", room);
const hears = (page, text) => until(`${text} is heard`, () => page.evaluate((one) => globalThis.heard.includes(one), text));
const isReady = (page) => until("the line stands", () => page.evaluate(() => globalThis.client.status.state === "live"));
const role = (page) => page.evaluate(() => globalThis.client.status.role);
const name = (page) => page.evaluate(() => globalThis.client.tab);

async function follow(page, room, from) {
  await page.evaluate(([id, place]) => { globalThis.hear(id, place); }, [room, from]);
  await until("the room is live", () => isLive(page, room));
}

let rooms = 0;
async function openRoom() {
  const id = `tabs-${(rooms += 1)}`;
  await bob.command(id, "open_room", { title: id });
  return id;
}

const say = (room, text) => bob.command(room, "post_message", { text });

describe("a follower's tab", () => {
  test("hears its room, however late its own lock is granted", async () => {
    const alice = await person();
    await isReady(await tab(alice));
    const room = await openRoom();
    const second = await tab(alice, {
      prepare: () => {
        const request = navigator.locks.request.bind(navigator.locks);
        navigator.locks.request = async (lock, ...rest) => {
          if (lock.includes(":tab:")) await new Promise((resolve) => { setTimeout(resolve, 200); });
          return request(lock, ...rest);
        };
      },
    });
    await follow(second, room);
    assert.equal(await role(second), "follower");
    // A leader that took the tab for gone left the room before it hears this.
    await until("the leader has heard it is there", async () => (await name(second)) !== null);
    await say(room, "are you there?");
    await hears(second, "are you there?");
  });

  test("hears its room again after the leader took it for gone", async () => {
    const alice = await person();
    const first = await tab(alice);
    await isReady(first);
    const room = await openRoom();
    const second = await tab(alice);
    await follow(second, room);
    assert.equal(await role(second), "follower");
    await first.evaluate(([space, from]) => new Promise((resolve) => {
      globalThis.client.on("message", ({ type }) => type === "unsubscribed" && resolve());
      // Once it is posted on another channel the leader hears it like any tab's.
      new BroadcastChannel(space).postMessage({ kind: "bye", from });
    }), [`dramatis:${new URL(proxy.url).host}:alice`, await name(second)]);
    await say(room, "still there?");
    await hears(second, "still there?");
  });
});

describe("a follower's tab, to which another speaks as its leader,", () => {
  const lost = { state: "waiting", retryAt: 0 };

  /** Says this on the channel of the tabs, and waits until the page has heard it. */
  const speak = (page, parcel) => page.evaluate(([space, said]) => new Promise((resolve) => {
    new BroadcastChannel(space).onmessage = ({ data }) => data.mark === said.mark && resolve();
    new BroadcastChannel(space).postMessage(said);
  }), [`dramatis:${new URL(proxy.url).host}:alice`, { ...parcel, mark: "said" }]);

  async function pair() {
    const alice = await person();
    const first = await tab(alice);
    await isReady(first);
    const second = await tab(alice);
    const room = await openRoom();
    await follow(second, room);
    assert.equal(await role(second), "follower");
    return { first, second, room };
  }

  for (const kind of ["status", "welcome"]) {
    test(`takes no ${kind} of one whose place was taken`, async () => {
      const { second, room } = await pair();
      await speak(second, { kind, to: await name(second), status: lost, ready: null, from: "superseded" });
      await isReady(second);
      await say(room, "on it goes");
      await hears(second, "on it goes");
    });
  }

  test("learns at the next probe how the line stands, where it was told wrong", async () => {
    const { first, second, room } = await pair();
    await speak(second, { kind: "status", status: lost, from: await name(first) });
    await isReady(second);
    await say(room, "on it goes");
    await hears(second, "on it goes");
  });
});

describe("a tab that catches up on a long past", () => {
  test("hears all of it, though another tab asks for the room's state meanwhile", async () => {
    const room = await openRoom();
    for (let part = 0; part < 5; part += 1) {
      await Promise.all(Array.from({ length: 900 }, (_, count) => say(room, `${part} ${count} ${"long ".repeat(40)}`)));
    }
    const there = bob.room(room);
    await until("bob is live", () => there.state === "live");
    const { epoch, after } = there.cursor;
    const alice = await person();
    const [first, second] = [await tab(alice), await tab(alice)];
    for (const page of [first, second]) await isReady(page);
    await second.evaluate((id) => {
      new BroadcastChannel("meanwhile").onmessage = () => { globalThis.client.room(id, { catchUp: "state" }); };
    }, room);
    await first.evaluate(([id, from]) => {
      const begun = new BroadcastChannel("meanwhile");
      globalThis.revisions = [];
      globalThis.client.room(id, from).on("event", ({ revision }) => {
        if (globalThis.revisions.push(revision) === 50) begun.postMessage("");
      });
    }, [room, { epoch, after: 0 }]);
    await until("both are live", async () => await isLive(first, room) && await second.evaluate((id) => globalThis.client.rooms.find((one) => one.id === id)?.state === "live", room), 60_000);
    assert.deepEqual(await first.evaluate(() => globalThis.revisions), Array.from({ length: after }, (_, index) => index + 1));
  });
});

describe("a copy of a tab", () => {
  for (const [what, end] of [["is closed", (page) => page.close()], ["leaves the room", (page, room) => page.evaluate((id) => globalThis.client.room(id).unfollow(), room)]]) {
    test(`is a tab of its own, and goes on hearing when its original ${what}`, async () => {
      const alice = await person();
      await isReady(await tab(alice));
      const room = await openRoom();
      const original = await tab(alice);
      await follow(original, room);
      // The browser gives the copy all that the original has stored for its session.
      const [copy] = await Promise.all([alice.waitForEvent("page"), original.evaluate(() => { window.open(location.href); })]);
      await copy.waitForLoadState();
      await connectIn(copy);
      await follow(copy, room);
      await until("it is named", async () => (await name(copy)) !== null);
      assert.notEqual(await name(copy), await name(original));
      await end(original, room);
      // What the leader does about it is done once it has answered another tab's wish.
      const other = await openRoom();
      await follow(copy, other);
      await say(room, "which one are you?");
      await hears(copy, "which one are you?");
    });
  }
});

describe("a copy of a tab, where no line can be shared,", () => {
  test("has a line of its own beside that of its original", async () => {
    const alice = await person();
    await alice.addInitScript(() => { Object.defineProperty(navigator, "locks", { value: undefined }); });
    const original = await tab(alice);
    await isReady(original);
    const [copy] = await Promise.all([alice.waitForEvent("page"), original.evaluate(() => { window.open(location.href); })]);
    await copy.waitForLoadState();
    const replaced = original.evaluate(() => new Promise((resolve) => {
      let isLost = false;
      globalThis.client.on("status", ({ state, code }) => {
        isLost ||= state !== "live";
        if (state === "closed") resolve(code);
        if (isLost && state === "live") resolve("live again");
      });
    }));
    await connectIn(copy);
    assert.equal(await replaced, "live again");
    await isReady(copy);
    const room = await openRoom();
    for (const page of [original, copy]) await follow(page, room);
    await say(room, "to both of you");
    for (const page of [original, copy]) await hears(page, "to both of you");
  });
});

describe("a browser that does not say which tabs live", () => {
  test("has a line, and complains of nothing", async () => {
    const context = await person();
    const faults = [];
    context.on("weberror", (error) => faults.push(error.error().message));
    const page = await tab(context, {
      prepare: () => { navigator.locks.query = () => Promise.reject(new Error("not to be had")); },
    });
    await isReady(page);
    const room = await openRoom();
    await follow(page, room);
    await say(room, "all the same");
    await hears(page, "all the same");
    assert.equal(await role(page), "leader");
    assert.deepEqual(faults, []);
  });
});

describe("two browsers that hold the same session, as copies of one machine do,", () => {
  test("have a line each after the first exchange", async () => {
    const one = await person();
    const first = await tab(one);
    await isReady(first);
    await first.evaluate(() => {
      globalThis.opened = 0;
      globalThis.client.on("status", ({ state }) => { if (state === "connecting") globalThis.opened += 1; });
    });
    const other = await browser.newContext({ storageState: await one.storageState() });
    contexts.push(other);
    const second = await tab(other);
    await until("the first was replaced", () => first.evaluate(() => globalThis.opened > 0));
    for (const page of [first, second]) await isReady(page);
    const room = await openRoom();
    for (const page of [first, second]) await follow(page, room);
    for (let count = 0; count < 20; count += 1) {
      await say(room, `line ${count}`);
      for (const page of [first, second]) await hears(page, `line ${count}`);
    }
    assert.ok(await first.evaluate(() => globalThis.opened) <= 2);
    const sessions = await Promise.all([first, second].map((page) => page.evaluate(() => localStorage.getItem(`dramatis:${location.host}:alice:session`))));
    assert.notEqual(sessions[0], sessions[1], "and the next tab of the first begins with its new one");
  });
});
