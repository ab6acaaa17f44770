// client.js where the server wants tokens: they are renewed in place on every transport, in Node and
// in a real Chromium, and a source that has none left ends the line with words.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { launch } from "./browser.mjs";
import { Proxy, Server, until } from "./server.mjs";

const LIFE = "3s";
let server;

/** A server that wants tokens, and closes a line so long after its token has run out. */
const guarded = (graceMs) => Server.start({
  prepare: async (made) => {
    const key = path.join(made.root, "token.key");
    await made.run("token", "--new-key", key);
    made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key, DRAMATIS__AUTH__EXPIRED_GRACE_MS: String(graceMs) };
  },
});

before(async () => {
  server = await guarded(500);
});

after(() => server.stop());

const mint = (user, life = LIFE) => server.run("token", "--user", user, "--for", life);

/** Opens a room as its owner. */
async function openRoom(id) {
  const owner = connect({ url: server.url, token: await mint("owner", "1h"), store: memoryStore() });
  await owner.command(id, "open_room", { title: id });
  owner.close();
}

describe("in Node, a token is renewed in place", () => {
  for (const transport of ["socket", "stream", "poll"]) {
    test(`on a ${transport}`, async () => {
      const id = `renewed-${transport}`;
      await openRoom(id);
      const asked = [];
      const alice = connect({
        url: server.url, transports: [transport], store: memoryStore(),
        token: ({ again }) => { asked.push(again); return mint("alice"); },
      });
      const lines = new Set();
      alice.on("status", ({ state }) => { if (state === "live") lines.add(alice.ready?.connection ?? lines.size); });
      const texts = [];
      alice.room(id).on("event", ({ name, data }) => name === "MessagePosted" && texts.push(data.text));
      await alice.room(id).join();
      const sent = [];
      const end = Date.now() + 9_000; // three lives of a token
      while (Date.now() < end) {
        sent.push(`message ${sent.length}`);
        await alice.room(id).post(sent.at(-1));
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
      await until("all came back", () => texts.length === sent.length);
      assert.deepEqual(texts, sent);
      assert.ok(asked.length >= 3 && asked.length < 20, `asked ${asked.length} times for a token`);
      assert.equal(asked[0], false);
      assert.ok(asked.slice(1).every((again) => again), "then each time since the last one runs out");
      alice.close();
    });
  }

  test("and a source that has no good one any more ends the line with words", async () => {
    const alice = connect({ url: server.url, token: () => "no-token", store: memoryStore() });
    const closed = await new Promise((resolve) => {
      alice.on("status", (status) => status.state === "closed" && resolve(status));
    });
    assert.equal(closed.code, 4501);
    assert.match(closed.reason, /token/);
    alice.close();
  });
});

describe("in Node, a source of tokens", () => {
  for (const transport of ["socket", "stream"]) {
    test(`that fails for a while is asked again, on a ${transport}`, async () => {
      const id = `failing-${transport}`;
      await openRoom(id);
      let [isDown, failures] = [false, 0];
      const alice = connect({
        url: server.url, transports: [transport], store: memoryStore(),
        token: async () => {
          if (!isDown) return mint("alice", "2s");
          failures += 1;
          throw new Error("the source is down");
        },
      });
      await alice.room(id).join();
      isDown = true;
      const lost = await new Promise((resolve) => {
        alice.on("status", (status) => ["waiting", "closed"].includes(status.state) && resolve(status));
      });
      assert.equal(lost.state, "waiting", `${lost.code} ${lost.reason}`);
      assert.match(lost.reason, /the source is down/);
      assert.ok(failures > 0);
      isDown = false;
      await alice.room(id).post("back again");
      assert.equal(alice.status.transport, transport);
      alice.close();
    });
  }

  test("that gives what has run out is not asked at the network's speed", async () => {
    await openRoom("stale");
    const [good, stale] = [await mint("alice", "3s"), await mint("alice", "1s")];
    let asked = 0;
    const alice = connect({
      url: server.url, store: memoryStore(),
      token: ({ again }) => { asked += 1; return again ? stale : good; },
    });
    await alice.room("stale").join();
    const closed = await new Promise((resolve) => {
      alice.on("status", (status) => status.state === "closed" && resolve(status));
    });
    assert.equal(closed.code, 4501);
    assert.ok(asked < 12, `asked ${asked} times`);
    alice.close();
  });

  test("is asked once for all that it kept waiting, and none of that is lost", async () => {
    const patient = await guarded(60_000);
    const mintThere = (life) => patient.run("token", "--user", "alice", "--for", life);
    const first = await mintThere("2s");
    let [asked, give] = [0, null];
    const given = new Promise((resolve) => { give = resolve; });
    const alice = connect({
      url: patient.url, store: memoryStore(),
      token: ({ again }) => { asked += 1; return again ? given : first; },
    });
    await alice.command("one", "open_room", { title: "One" });
    await alice.command("two", "open_room", { title: "Two" });
    const refused = new Set();
    alice.on("message", ({ type, code, id }) => type === "reject" && code === "token_expired" && refused.add(id));
    const posts = [];
    await until("the token has run out", () => {
      posts.push(alice.command("one", "post_message", { text: `message ${posts.length}` }));
      return refused.size > 0;
    });
    const before = refused.size;
    const [page, room] = [alice.room("one").history(), alice.room("two")];
    await until("all else is refused as well", () => refused.size >= before + 2);
    give(await mintThere("1h"));
    await Promise.all(posts);
    assert.equal((await page).type, "page");
    await until("the other room is followed", () => room.state === "live");
    assert.equal(asked, 2, "for the first, and once more");
    alice.close();
    await patient.stop();
  });
});

describe("in Node, a client whose line is down for longer than a token lasts", () => {
  test("asks its source again, as often as that has another", async () => {
    const own = await guarded(500);
    const proxy = await Proxy.start(own.port);
    const given = [];
    const ranOut = () => until("the last one has run out", () => Date.now() > (JSON.parse(atob(given.at(-1).split(".")[1])).exp + 1) * 1_000);
    let isDown = false;
    const alice = connect({
      url: proxy.url, store: memoryStore(), transports: ["socket"],
      token: async () => {
        if (given.length === 1 && !isDown) return given[0]; // not before the line was down
        given.push(await own.run("token", "--user", "alice", "--for", ["3s", "1s"][given.length] ?? "1h"));
        // The network goes again just when there is a new one, and stays away until that has run out.
        if (given.length === 2) proxy.cut();
        return given.at(-1);
      },
    });
    await alice.once("ready");
    const states = [];
    alice.on("status", ({ state, code }) => states.push(`${state} ${code ?? ""}`));
    proxy.cut();
    await ranOut();
    isDown = true;
    proxy.restore();
    await until("another was asked for", () => given.length === 2);
    await ranOut();
    proxy.restore();
    await until("a third is asked for, or it is over", () => given.length > 2 || alice.status.state === "closed");
    assert.ok(!states.some((state) => state.startsWith("closed")), states.join());
    await alice.command("after-all", "open_room", { title: "After all" });
    alice.close();
    await proxy.stop();
    await own.stop();
  });
});

describe("in Node, the HTTP calls of a client whose token ran out", () => {
  test("are made again with another, for which the source is asked once", async () => {
    await openRoom("by-http");
    let [asked, first] = [0, null];
    const alice = connect({
      url: server.url, store: memoryStore(),
      token: async () => {
        asked += 1;
        const token = await mint("alice", asked === 1 ? "1s" : "1h");
        first ??= token;
        return token;
      },
    });
    await until("a first was had", () => first !== null);
    const { exp } = JSON.parse(atob(first.split(".")[1]));
    alice.close(); // as in a tab that follows: no line of its own has its token renewed
    await until("it has run out", () => Date.now() > (exp + 1) * 1_000);
    const answers = await Promise.all([alice.api.rooms(), alice.api.members("by-http"), alice.api.rooms()]);
    assert.ok(answers.every(Boolean));
    assert.equal(asked, 2);
    const bob = connect({ url: server.url, store: memoryStore(), token: "no-token" });
    await assert.rejects(bob.api.rooms(), { status: 401 });
    bob.close();
  });
});

describe("a source of tokens that never answers", () => {
  test("is given up after a while, and asked again", async (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    const { ANSWER_WITHIN_MS, Tokens } = await import("../../src/web/ui/client/tokens.js");
    const asked = [];
    const tokens = new Tokens(({ again }) => {
      asked.push(again);
      return asked.length % 2 === 1 ? new Promise(() => {}) : `token ${asked.length}`;
    });
    const first = tokens.last();
    const joined = tokens.last();
    await Promise.resolve();
    context.mock.timers.tick(ANSWER_WITHIN_MS);
    await assert.rejects(first, /not answered in 10 s/);
    await assert.rejects(joined, /not answered in 10 s/);
    assert.equal(await tokens.last(), "token 2");
    const renewal = tokens.next();
    context.mock.timers.tick(ANSWER_WITHIN_MS);
    await assert.rejects(renewal, /not answered in 10 s/);
    assert.equal(await tokens.next(), "token 4");
    assert.deepEqual(asked, [false, false, true, true]);
  });
});

describe("in Chromium, a token is renewed in place", () => {
  for (const transport of ["socket", "stream"]) {
    test(`on a ${transport}`, async () => {
      const id = `chromium-${transport}`;
      await openRoom(id);
      const browser = await launch();
      const page = await browser.newPage();
      const asked = [];
      await page.exposeFunction("mint", (again) => { asked.push(again); return mint("bob"); });
      await page.goto(`${server.url}/docs`);
      const texts = await page.evaluate(async ([room, way]) => {
        const { connect: open } = await import("/client.js");
        const bob = open({ token: ({ again }) => globalThis.mint(again), transports: [way], share: false });
        const heard = [];
        bob.room(room).on("event", ({ name, data }) => name === "MessagePosted" && heard.push(data.text));
        await bob.room(room).join();
        const sent = [];
        const end = Date.now() + 7_000;
        while (Date.now() < end) {
          sent.push(`message ${sent.length}`);
          await bob.room(room).post(sent.at(-1));
          await new Promise((resolve) => { setTimeout(resolve, 250); });
        }
        while (heard.length < sent.length) await new Promise((resolve) => { setTimeout(resolve, 20); });
        bob.close();
        return [sent, heard];
      }, [id, transport]);
      assert.deepEqual(texts[1], texts[0]);
      assert.ok(asked.length >= 2 && asked.length < 20, `asked ${asked.length} times for a token`);
      await browser.close();
    });
  }
});

describe("in Chromium, people at one browser who show tokens and give no account", () => {
  /** A tab that connects with a token of this person, or with this token. */
  async function tab(context, url, token) {
    const page = await context.newPage();
    await page.goto(`${url}/client.d.ts`);
    await page.evaluate(async (given) => {
      const { connect: open } = await import("/client.js");
      globalThis.client = open({ token: async () => given });
    }, token);
    return page;
  }
  const user = (page) => page.evaluate(() => (globalThis.client.status.state === "live" ? globalThis.client.user : null));

  test("have a line each, and neither acts or sends as the other", async () => {
    await openRoom("at-one-browser");
    const browser = await launch();
    const context = await browser.newContext();
    const tokens = { alice: await mint("alice", "1h"), bob: await mint("bob", "1h") };
    const alice = await tab(context, server.url, tokens.alice);
    await until("alice is there", async () => await user(alice) === "alice");
    const second = await tab(context, server.url, tokens.alice);
    await until("her second tab is there", async () => await user(second) === "alice");
    assert.equal(await second.evaluate(() => globalThis.client.status.role), "follower", "the tabs of one person share");
    const bob = await tab(context, server.url, tokens.bob);
    await until("bob is there, as himself", async () => await user(bob) === "bob");

    // What waits is kept for its own person.
    await second.close();
    await alice.evaluate(() => {
      globalThis.client.close();
      return import("/client.js").then(({ localStore }) => {
        const frame = { type: "command", id: "hers", room: "at-one-browser", name: "join", data: {} };
        const space = Object.keys(localStorage).find((key) => key.endsWith(":alice:session")).replace(/:session$/, ":outbox");
        localStore(space).put({ id: "hers", owner: "gone", frame, createdAt: Date.now(), attempted: false, state: "waiting" });
      });
    });
    const again = await tab(context, server.url, tokens.bob);
    await until("bob has another tab", async () => await user(again) === "bob");
    await bob.close();
    await until("which leads", () => again.evaluate(() => globalThis.client.status.role === "leader" && globalThis.client.status.state === "live"));
    assert.deepEqual(await again.evaluate(() => globalThis.client.pending), []);
    const back = await tab(context, server.url, tokens.alice);
    await until("hers is sent as her", async () => (await (await fetch(`${server.url}/api/rooms/at-one-browser/members`, {
      headers: { authorization: `Bearer ${tokens.alice}` },
    })).json()).members?.some(({ member }) => member === "alice"));
    await back.close();
    await browser.close();
  });

  test("share and keep nothing where a token does not say whose it is", async () => {
    const browser = await launch();
    const context = await browser.newContext();
    const page = await tab(context, server.url, "opaque");
    await until("it is refused", () => page.evaluate(() => globalThis.client.status.state === "closed"));
    const found = await page.evaluate(() => {
      globalThis.client.command("at-one-browser", "join").catch(() => {});
      return [globalThis.client.status.role, Object.keys(localStorage).filter((key) => key.includes(":outbox:"))];
    });
    assert.deepEqual(found, ["alone", []]);
    await browser.close();
  });
});

describe("in Chromium, tabs of one person with a token each", () => {
  /** A page that has the client and waits to be told whom to connect as: how long that takes costs no token its life. */
  async function prepared(context) {
    const page = await context.newPage();
    await page.exposeFunction("mint", (life) => mint("alice", life));
    await page.goto(`${server.url}/client.d.ts`);
    await page.evaluate(async () => { globalThis.open = (await import("/client.js")).connect; });
    return page;
  }
  const stands = (page) => page.evaluate(() => { const { role, state } = globalThis.client.status; return `${role} ${state}`; });

  /**
   * Two tabs, of which the first, with a token for so long, holds the line and the second follows. On a machine that is
   * too busy for that within the token's life it is tried again with a longer one.
   * @param {(page: import("playwright-core").Page, life: string) => Promise<void>} connectFirst
   * @param {(page: import("playwright-core").Page) => Promise<void>} connectSecond
   */
  async function inTime(connectFirst, connectSecond) {
    for (const seconds of [3, 6, 12, 24, 48]) {
      const browser = await launch();
      const context = await browser.newContext();
      const [first, second] = [await prepared(context), await prepared(context)];
      const end = Date.now() + seconds * 1_000;
      await connectFirst(first, `${seconds}s`);
      const isInTime = (role, page) => until(`the ${role} is live`, async () => Date.now() > end || await stands(page) === `${role} live`, 60_000);
      await isInTime("leader", first);
      await connectSecond(second);
      await isInTime("follower", second);
      if (Date.now() < end) return { browser, first, second };
      await browser.close();
    }
    throw new Error("no two tabs were live within the life of a token of 48 s");
  }

  test("go on with that of another when the one of the line has run out", async () => {
    await openRoom("a-token-each");
    const connectWith = (page, token) => page.evaluate((given) => {
      globalThis.states = [];
      globalThis.client = globalThis.open({ token: given, account: "alice" });
      globalThis.client.on("status", ({ state, code, role }) => globalThis.states.push([state, code, role].join(" ")));
    }, token);
    const lasting = await mint("alice", "1h");
    const { browser, first, second } = await inTime(
      async (page, life) => connectWith(page, await mint("alice", life)), (page) => connectWith(page, lasting));
    await until("the second leads", async () => await stands(second) === "leader live", 60_000);
    assert.ok(!(await second.evaluate(() => globalThis.states)).some((state) => state.startsWith("closed")), "and heard of no refusal");
    assert.ok((await first.evaluate(() => globalThis.states)).some((state) => state.startsWith("closed 4501")), "the first did");
    await until("and goes on over the other's line", async () => await stands(first) === "follower live");
    await second.evaluate(() => globalThis.client.command("a-token-each", "join"));
    await browser.close();
  });

  test("go on with that of another when the source of the one of the line fails", async () => {
    await openRoom("a-source-each");
    const { browser, first, second } = await inTime((page, life) => page.evaluate((given) => {
      let asked = 0;
      globalThis.client = globalThis.open({
        account: "alice",
        token: () => {
          asked += 1;
          if (asked > 1) throw new Error("the source is gone");
          return globalThis.mint(given);
        },
      });
    }, life), (page) => page.evaluate(() => {
      globalThis.client = globalThis.open({ account: "alice", token: () => globalThis.mint("1h") });
    }));
    await until("the second leads", async () => await stands(second) === "leader live", 60_000);
    await until("and the first follows", async () => await stands(first) === "follower live");
    await first.evaluate(() => globalThis.client.command("a-source-each", "join"));
    await browser.close();
  });

  test("are closed once each of theirs was refused", async () => {
    const browser = await launch();
    const context = await browser.newContext();
    const pages = [];
    for (const life of ["3s", "4s"]) {
      const page = await context.newPage();
      pages.push(page);
      await page.goto(`${server.url}/client.d.ts`);
      await page.evaluate(async (given) => {
        const { connect: open } = await import("/client.js");
        globalThis.client = open({ token: given, account: "alice" });
      }, await mint("alice", life));
    }
    for (const page of pages) {
      await until("it is closed", () => page.evaluate(() => globalThis.client.status.state === "closed" && globalThis.client.status.code === 4501));
    }
    await browser.close();
  });
});

describe("in Node, a line whose person a token told", () => {
  test("waits for a source that fails at first, and then says what was asked of it meanwhile", async () => {
    await openRoom("asked-early");
    let asked = 0;
    const alice = connect({
      url: server.url,
      token: () => {
        asked += 1;
        if (asked < 3) throw new Error("the source is not up yet");
        return mint("alice", "1h");
      },
    });
    const said = [];
    alice.on("status", ({ state, reason }) => said.push(reason ?? state));
    const room = alice.room("asked-early");
    await room.join();
    await until("the room is followed", () => room.state === "live");
    assert.equal(asked, 3);
    assert.equal(said.filter((one) => one.includes("the source is not up yet")).length, 2, said.join());
    alice.close();
  });

  test("takes no token of another", async () => {
    await openRoom("told-by-token");
    const alice = connect({ url: server.url, token: ({ again }) => mint(again ? "mallory" : "alice", again ? "1h" : "3s") });
    const problems = [];
    alice.on("problem", (error) => problems.push(error.message));
    await alice.room("told-by-token").join();
    await until("the other's is refused", () => problems.length > 0);
    assert.match(problems[0], /mallory.*alice/);
    assert.equal(alice.user, "alice");
    alice.close();
  });
});
