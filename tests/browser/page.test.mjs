// The chat page in a real headless Chromium, against a real server process.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Person, launch, launchForgetful, until } from "./browser.mjs";
import { Proxy, Server } from "./server.mjs";

let server;
let proxy;
let browser;
let people = [];

before(async () => {
  server = await Server.start();
  proxy = await Proxy.start(server.port);
  browser = await launch();
});

after(async () => {
  await browser.close();
  await proxy.stop();
  await server.stop();
});

afterEach(async () => {
  proxy.restore();
  proxy.refuse();
  const faults = people.flatMap(({ faults }) => faults);
  for (const person of people) await person.leave();
  people = [];
  assert.deepEqual(faults, [], "the browser's console is quiet");
});

async function come(name, options, at = browser) {
  const person = await Person.come(at, proxy.url, name, options);
  people.push(person);
  return person;
}

/** Two people in one new room. */
async function two(title) {
  const alice = await come("alice");
  await alice.isLive(); // a fallback takes a moment
  const room = await alice.openRoom(title);
  const bob = await come("bob", { room });
  await bob.join();
  return { alice, bob, room };
}

describe("two people", () => {
  test("talk, reply, edit, react and remove", async () => {
    const { alice, bob } = await two("Two people");
    await alice.say("good evening bob");
    await bob.hears("good evening bob");
    await bob.act("good evening bob", "Reply");
    await bob.say("and to you");
    await alice.hears("and to you");
    await alice.message("and to you").locator(".quote", { hasText: "good evening bob" }).waitFor();

    await alice.act("and to you", "React");
    await alice.page.getByRole("button", { name: "React with 🎉" }).click();
    await bob.message("and to you").getByRole("button", { name: /🎉 1 by alice/ }).waitFor();

    await bob.composer.press("ArrowUp");
    await bob.composer.fill("and to you, alice");
    await bob.composer.press("Enter");
    await alice.message("and to you, alice").locator(".edited").waitFor();

    bob.page.on("dialog", (dialog) => dialog.accept());
    await bob.act("and to you, alice", "Remove");
    await alice.page.locator(".removed").waitFor();
    assert.equal(await alice.message("and to you").count(), 0);
    await alice.picture("two-people");
  });

  test("follow a thread beside the conversation", async () => {
    const { alice, bob } = await two("Threads");
    await alice.say("who brings what?");
    await bob.hears("who brings what?");
    await bob.act("who brings what?", "Open thread");
    const reply = bob.page.locator("#panel textarea");
    await reply.fill("I bring lamps");
    await reply.press("Enter");
    await alice.message("who brings what?").getByRole("button", { name: /thread of 1 reply/ }).click();
    await alice.page.locator("#panel .message", { hasText: "I bring lamps" }).waitFor();
    await alice.picture("thread");
    await alice.page.keyboard.press("Escape");
    await alice.page.locator("#panel").waitFor({ state: "hidden" });
  });

  test("see each other come, write and go", async () => {
    const { alice, bob } = await two("Presence");
    await alice.page.locator("#room-about", { hasText: "2 here" }).waitFor();
    await bob.composer.pressSequentially("thinking");
    await alice.page.locator("#typing", { hasText: "bob is writing" }).waitFor();
    await alice.picture("typing");
    await bob.composer.fill("");
    await until("bob has stopped", async () => await alice.page.locator("#typing").innerText() === "");
    await bob.page.close();
    await alice.page.locator("#room-about", { hasText: "1 here" }).waitFor();
  });

  test("see what they have not read, until they have read it", async () => {
    const { alice, bob, room } = await two("Unread");
    await alice.openRoom("Elsewhere");
    await bob.say("are you there?");
    const entry = alice.page.locator(`[data-room="${room}"]`);
    await entry.locator(".count", { hasText: "1" }).waitFor();
    await alice.picture("unread");
    await entry.click();
    await alice.hears("are you there?");
    await entry.locator(".count").waitFor({ state: "detached" });
  });

  test("invite each other", async () => {
    const alice = await come("alice");
    const room = await alice.openRoom("By invitation");
    const bob = await come("bob");
    await alice.page.click("#members-open");
    await alice.page.getByLabel("Whom to invite").fill("bob");
    await alice.page.getByRole("button", { name: "Invite" }).click();
    await bob.page.getByRole("button", { name: "Join By invitation" }).click();
    await bob.composer.waitFor();
    assert.equal(new URL(bob.page.url()).hash, `#${room}`);
    await bob.say("thank you");
    await alice.hears("thank you");
  });

  test("see names, members and a plain text where someone writes HTML", async () => {
    const { alice, bob } = await two("Plain text");
    await bob.say("/nick Bob <b>B.</b>");
    await alice.page.locator(".line-text", { hasText: "Bob <b>B.</b>" }).waitFor();
    await bob.say("<img src=x onerror=alert(1)> & so on");
    await alice.hears("<img src=x onerror=alert(1)> & so on");
    assert.equal(await alice.page.locator("#timeline img").count(), 0);
    await alice.page.click("#members-open");
    await alice.page.locator(".member", { hasText: "Bob <b>B.</b>" }).waitFor();
  });
});

describe("without a network", () => {
  test("what is written is kept, shown as waiting, and arrives once when it is back", async () => {
    const { alice, bob } = await two("Cut and restored");
    await alice.say("before");
    await bob.hears("before");
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    await alice.say("written offline 1");
    await alice.say("written offline 2");
    await alice.page.locator(".message.waiting", { hasText: "written offline 2" }).waitFor();
    await alice.picture("offline");
    proxy.restore();
    await bob.hears("written offline 2");
    await alice.page.locator("#banner").waitFor({ state: "hidden" });
    await until("nothing waits", async () => await alice.page.locator(".message.waiting, .message.sending").count() === 0);
    for (const person of [alice, bob]) assert.deepEqual(await person.texts(), ["before", "written offline 1", "written offline 2"]);
  });

  test("a reload keeps what waits and what was being written", async () => {
    const { alice, bob } = await two("Reload");
    await alice.say("before the reload");
    await bob.hears("before the reload");
    await alice.composer.fill("half a senten");
    await alice.page.reload();
    await alice.hears("before the reload");
    assert.equal(await alice.composer.inputValue(), "half a senten");
    await alice.composer.fill("");

    // The page comes from elsewhere while the line is refused, so that it can load at all.
    proxy.refuse("/socket", "/api/stream", "/api/poll");
    proxy.cut();
    proxy.restore();
    await alice.page.locator("#banner").waitFor();
    await alice.say("survives a reload");
    await alice.page.locator(".message.waiting").waitFor();
    await alice.page.reload();
    await alice.page.locator(".message.waiting", { hasText: "survives a reload" }).waitFor();
    proxy.refuse();
    await bob.hears("survives a reload");
    await until("nothing waits", async () => await alice.page.locator(".message.waiting, .message.sending").count() === 0);
    assert.deepEqual(await bob.texts(), ["before the reload", "survives a reload"]);
  });

  test("a reload keeps what waits though the storage is full by then", async () => {
    const { alice, bob } = await two("Full");
    proxy.refuse("/socket", "/api/stream", "/api/poll");
    proxy.cut();
    proxy.restore();
    await alice.page.locator("#banner").waitFor();
    for (const text of ["kept 1", "kept 2", "kept 3"]) await alice.say(text);
    await alice.page.locator(".message.waiting", { hasText: "kept 3" }).waitFor();
    await alice.page.evaluate(() => {
      for (let [size, count] = [1 << 20, 0]; size >= 1;) {
        try {
          localStorage.setItem(`filling ${count}`, "x".repeat(size));
          count += 1;
        } catch {
          size >>= 1;
        }
      }
    });
    await alice.page.reload();
    await alice.page.locator(".message.waiting", { hasText: "kept 3" }).waitFor();
    await alice.picture("full-storage");
    proxy.refuse();
    await bob.hears("kept 3");
    assert.deepEqual(await bob.texts(), ["kept 1", "kept 2", "kept 3"]);
  });

  test("the server may be killed and come back", async () => {
    const { alice, bob } = await two("Killed");
    await alice.say("before");
    await bob.hears("before");
    await server.kill();
    await alice.page.locator("#banner").waitFor();
    await alice.say("while it was away");
    await server.up();
    await bob.hears("while it was away");
    await alice.say("after");
    await bob.hears("after");
    assert.deepEqual(await bob.texts(), ["before", "while it was away", "after"]);
  });
});

describe("where a WebSocket does not get through", () => {
  test("the page talks over a stream", async () => {
    proxy.refuse("/socket");
    const { alice, bob } = await two("No WebSocket");
    await alice.say("no socket needed");
    await bob.hears("no socket needed");
    await bob.say("indeed");
    await alice.hears("indeed");
    assert.equal(await alice.page.locator("#line").innerText(), "Connected (event stream)");
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    await alice.say("written offline");
    proxy.restore();
    await bob.hears("written offline");
    assert.deepEqual(await bob.texts(), ["no socket needed", "indeed", "written offline"]);
  });
});

describe("a message that was recorded although the page was told else", () => {
  test("is there once after it was sent again", async () => {
    proxy.refuse("/socket");
    const { alice, bob } = await two("Told else");
    let told = 0;
    await alice.page.route("**/api/commands", async (route) => {
      const answer = await route.fetch();
      told += 1;
      if (told > 1) return route.fulfill({ response: answer });
      // As when an answer was lost and the server then took nothing for a while.
      return route.fulfill({ status: 503, json: { code: "unavailable", detail: "try again later", retry: false } });
    });
    await alice.say("said once");
    await bob.hears("said once");
    await alice.page.getByRole("button", { name: "Send this message again" }).click();
    await alice.page.locator(".refusal").waitFor({ state: "detached" });
    await alice.say("and something else");
    await bob.hears("and something else");
    assert.deepEqual(await bob.texts(), ["said once", "and something else"]);
  });
});

describe("a person's tabs", () => {
  test("share one line, and the next takes it over when the first goes", async () => {
    const alice = await come("alice");
    const room = await alice.openRoom("Two tabs");
    const socketsBefore = proxy.socketCount;
    const second = await alice.tab(room);
    await alice.isLive(second);
    await alice.say("from the first tab");
    await alice.hears("from the first tab", second);
    assert.equal(proxy.socketCount, socketsBefore, "the second tab opens no socket");

    await alice.page.close();
    await alice.isLive(second);
    await second.locator("#composer-place textarea").fill("from the second tab");
    await second.locator("#composer-place textarea").press("Enter");
    await alice.hears("from the second tab", second);
    await until("one line stands", () => proxy.socketCount === socketsBefore);
    await until("it is no longer on its way", async () => await second.locator(".message.sending, .message.waiting").count() === 0);
    assert.deepEqual(await alice.texts(second), ["from the first tab", "from the second tab"]);
  });

  test("send what another one that was closed had left", async () => {
    const alice = await come("alice");
    const room = await alice.openRoom("Left behind");
    const second = await alice.tab(room);
    await alice.isLive(second);
    proxy.cut();
    await until("both know", async () => await second.locator('#status[data-state="live"]').count() === 0);
    await second.locator("#composer-place textarea").fill("from a tab that is gone");
    await second.locator("#composer-place textarea").press("Enter");
    await second.locator(".message.waiting, .message.sending").waitFor();
    await second.close();
    proxy.restore();
    await alice.hears("from a tab that is gone");
    await until("it is no longer on its way", async () => await alice.page.locator(".message.sending, .message.waiting").count() === 0);
    assert.deepEqual(await alice.texts(), ["from a tab that is gone"]);
  });

  test("have a line each where the browser cannot share one", async () => {
    const alice = await come("alice");
    await alice.page.close();
    await alice.context.addInitScript(() => { Object.defineProperty(navigator, "locks", { value: undefined }); });
    await until("no line stands", () => proxy.socketCount === 0);
    const first = await alice.tab();
    alice.page = first;
    const room = await alice.openRoom("A line each");
    const second = await alice.tab(room);
    await alice.isLive(second);
    assert.equal(proxy.socketCount, 2);
    await alice.say("still one conversation");
    await alice.hears("still one conversation", second);
  });

  test("have a line each where their user forbids the browser to keep anything", async () => {
    const alice = await come("alice", {}, await launchForgetful());
    const refusal = await alice.page.evaluate(() => navigator.locks.request("any", () => "none").catch(({ name }) => name));
    assert.equal(refusal, "SecurityError", "this browser refuses locks");
    await alice.isLive();
    const room = await alice.openRoom("Nothing is kept");
    const second = await alice.tab(room);
    await alice.isLive(second);
    await alice.say("still two lines");
    await alice.hears("still two lines", second);
    assert.equal(await alice.page.locator("#line").getAttribute("title"), "over socket");
    await alice.picture("nothing-kept");
  });

  test("take the line from a tab that the system froze", async () => {
    const alice = await come("alice");
    const room = await alice.openRoom("Frozen");
    const second = await alice.tab(room);
    await alice.isLive(second);
    const frozen = await alice.context.newCDPSession(alice.page);
    await frozen.send("Debugger.enable");
    const stopped = new Promise((resolve) => { frozen.once("Debugger.paused", resolve); });
    await frozen.send("Debugger.pause");
    // A page that runs no script answers no probe; anything it does next stops it.
    alice.page.evaluate(() => 1).catch(() => {});
    await stopped;
    const text = second.locator("#composer-place textarea");
    await text.fill("from the tab in sight");
    await text.press("Enter");
    await until("it was taken", async () => await second.locator(".message .text", { hasText: "from the tab in sight" }).count() === 1
      && await second.locator(".message.sending, .message.waiting").count() === 0, 30_000);
    await frozen.send("Debugger.resume");
    await frozen.send("Debugger.disable");
    await until("the first follows now", async () => await alice.message("from the tab in sight").count() === 1);
    await alice.isLive();
  });

  test("follow rooms of their own", async () => {
    const alice = await come("alice");
    const one = await alice.openRoom("Tab one");
    await alice.say("in one");
    const other = await alice.openRoom("Tab other");
    const second = await alice.tab(one);
    await alice.hears("in one", second);
    const bob = await come("bob", { room: other });
    await bob.join();
    await bob.say("to the other");
    await alice.hears("to the other");
    assert.deepEqual(await alice.texts(second), ["in one"]);
  });
});

describe("a long conversation", () => {
  test("shows its past on scrolling up, and stays where the reader is", async () => {
    const writer = connect({ url: server.url, user: "writer" });
    await writer.command("long", "open_room", { title: "Long" });
    await Promise.all(Array.from({ length: 180 }, (_, count) => writer.room("long").post(`line ${count}`)));
    const alice = await come("alice", { room: "long" });
    await alice.hears("line 179");
    await until("the first line is there", async () => {
      await alice.page.locator("#scroller").evaluate((scroller) => { scroller.scrollTop = 0; });
      return await alice.message("line 0").count() > 0;
    });
    await writer.room("long").post("news");
    await alice.page.locator("#pill", { hasText: "1 new message" }).click();
    await alice.message("news").waitFor();
    const texts = await alice.texts();
    assert.deepEqual(texts, [...Array.from({ length: 180 }, (_, count) => `line ${count}`), "news"]);
    writer.close();
  });
});

describe("the larger store", () => {
  test("keeps, lists and removes entries in IndexedDB", async () => {
    const alice = await come("alice");
    const held = await alice.page.evaluate(async () => {
      const { indexedStore } = await import("/client.js");
      const store = indexedStore("a-test");
      await store.put({ id: "1", text: "one" });
      await store.put({ id: "2", text: "two" });
      await store.put({ id: "2", text: "two again" });
      await store.remove("1");
      return indexedStore("a-test").list();
    });
    assert.deepEqual(held, [{ id: "2", text: "two again" }]);
  });
});

describe("the page of the HTTP API", () => {
  test("sends a request and shows its answer", async () => {
    const alice = await come("alice");
    await alice.openRoom("Shown by the API");
    await alice.page.goto(`${proxy.url}/docs`);
    const operation = alice.page.locator(".operation", { has: alice.page.locator(".path", { hasText: /^\/api\/rooms$/ }) }).first();
    await operation.locator("summary").click();
    await operation.getByRole("button", { name: "Send" }).click();
    await operation.locator(".status-good", { hasText: "200" }).waitFor();
    await operation.locator("pre", { hasText: "Shown by the API" }).waitFor();
    await alice.picture("docs");
    await alice.page.fill("#filter", "no such operation");
    assert.equal(await alice.page.locator(".operation:visible").count(), 0);
  });
});

describe("the page", () => {
  test("fits a phone", async () => {
    const { alice, bob, room } = await two("Phone");
    await alice.say("a rather long message that has to be broken over several lines on a narrow screen");
    await bob.hears("rather long");
    const phone = await come("carol", { room, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await phone.hears("rather long");
    await phone.join();
    const width = () => phone.page.evaluate(() => document.documentElement.scrollWidth);
    assert.equal(await width(), 360, "nothing sticks out");
    await phone.composer.fill("hello from a phone");
    await phone.page.click("#composer-place .send");
    await alice.hears("hello from a phone");
    await phone.picture("phone");
    await phone.page.click("#drawer-open");
    await phone.page.locator(".room-entry", { hasText: "Phone" }).waitFor();
    await phone.picture("phone-rooms");
    await phone.page.keyboard.press("Escape");
    await phone.page.click("#members-open");
    await phone.page.locator(".member", { hasText: "alice" }).waitFor();
    assert.equal(await width(), 360, "nothing sticks out");
  });

  test("is worked by keyboard alone", async () => {
    const { alice, bob } = await two("Keyboard");
    await bob.say("one for the keyboard");
    await alice.hears("one for the keyboard");
    await alice.composer.focus();
    await alice.page.keyboard.press("Shift+Alt+ArrowUp");
    assert.equal(await alice.page.evaluate(() => document.activeElement.tagName), "LI");
    await alice.page.keyboard.press("r");
    await alice.page.locator(".context", { hasText: "Reply to bob" }).first().waitFor();
    await alice.page.keyboard.type("answered without a mouse");
    await alice.page.keyboard.press("Enter");
    await bob.message("answered without a mouse").locator(".quote").waitFor();
    await alice.page.keyboard.press("Control+k");
    await alice.page.keyboard.type("keyboard");
    await alice.page.keyboard.press("Enter");
    assert.equal(await alice.page.evaluate(() => document.activeElement.tagName), "TEXTAREA");
  });

  test("is light and dark as the system is, or as it is told", async () => {
    const back = (person) => person.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await come("alice", { colorScheme: "light" });
    const dark = await come("alice", { colorScheme: "dark" });
    const [of_light, of_dark] = [await back(light), await back(dark)];
    assert.notEqual(of_light, of_dark);
    await dark.page.click("#theme"); // auto, light
    await until("it is light", async () => await back(dark) === of_light);
    await dark.page.reload();
    assert.equal(await back(dark), of_light, "and stays so");
  });

  test("says why a name or a room is not to be had", async () => {
    const alice = await come("a%20b");
    await alice.page.locator("#welcome-error", { hasText: "space" }).waitFor();
    await alice.page.fill("#welcome-name", "alice");
    await alice.page.press("#welcome-name", "Enter");
    await alice.page.evaluate(() => { location.hash = "no-such-room"; });
    await alice.page.locator("#room-note", { hasText: "There is no room" }).waitFor();
    await alice.page.getByRole("button", { name: "Open it" }).click();
    await alice.page.press("#room-form-title", "Enter");
    await alice.composer.waitFor();
  });
});
