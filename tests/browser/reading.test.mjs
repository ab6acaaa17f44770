// What the chat page shows of much: long threads, many rooms and members, what was read and what not.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { until } from "./browser.mjs";
import { Proxy } from "./server.mjs";
import { come, owner, server } from "./visits.mjs";

const open = (id) => owner.command(id, "open_room", { title: id });
const say = (id, text, data = {}) => owner.command(id, "post_message", { text, ...data });
const sayMany = (id, count, what = "line") => Promise.all(Array.from({ length: count }, (_, number) => say(id, `${what} ${number}`)));
const inPanel = (person, text) => person.page.locator("#panel .message", { hasText: text });

describe("a thread", () => {
  test("is shown whole, as it reads now, where it began long ago", async () => {
    await open("long-ago");
    const { revision: root } = await say("long-ago", "how it began");
    const { revision: early } = await say("long-ago", "an early answer", { reply_to: root });
    for (let part = 0; part < 3; part += 1) await sayMany("long-ago", 800);
    await owner.command("long-ago", "edit_message", { target: root, text: "how it really began" });
    await sayMany("long-ago", 100);
    await say("long-ago", "a late answer", { reply_to: root });
    const alice = await come("alice", { room: "long-ago" });
    await alice.join();
    await alice.message("a late answer").hover();
    await alice.act("a late answer", "Open thread");
    await inPanel(alice, "how it really began").waitFor();
    await inPanel(alice, "an early answer").waitFor();
    await alice.picture("thread-of-long-ago");

    // All of it can be acted upon, and what others do to it is seen.
    await inPanel(alice, "an early answer").hover();
    await inPanel(alice, "an early answer").getByRole("button", { name: "React", exact: true }).click();
    await alice.page.locator("#panel").getByRole("button", { name: "React with 🎉" }).click();
    await inPanel(alice, "an early answer").getByRole("button", { name: /🎉 1 by alice/ }).waitFor();
    await owner.command("long-ago", "edit_message", { target: early, text: "an early answer, reworded" });
    await inPanel(alice, "reworded").waitFor();
  });

  test("stays while much else is said, and shows what is answered while the reader is far back", async () => {
    await open("stays");
    await sayMany("stays", 40, "before");
    const { revision: root } = await say("stays", "the first of a thread");
    const alice = await come("alice", { room: "stays" });
    await alice.join();
    await alice.act("the first of a thread", "Open thread");
    await inPanel(alice, "the first of a thread").waitFor();
    await sayMany("stays", 600);
    await alice.hears("line 599");
    await say("stays", "answered after all", { reply_to: root });
    await inPanel(alice, "answered after all").waitFor();
    assert.equal(await inPanel(alice, "the first of a thread").count(), 1);

    // So far back that the newest is not held.
    await until("the first lines are there", async () => {
      await alice.page.locator("#scroller").evaluate((scroller) => { scroller.scrollTop = 0; });
      return await alice.message("before 0").count() > 0;
    });
    await say("stays", "answered while far back", { reply_to: root });
    await inPanel(alice, "answered while far back").waitFor();
    const reply = alice.page.locator("#panel textarea");
    await reply.fill("my own answer");
    await reply.press("Enter");
    await inPanel(alice, "my own answer").waitFor();
    assert.equal(await inPanel(alice, "the first of a thread").count(), 1);
  });
});

describe("more rooms than a page of the list", () => {
  test("are all found, and one that is not there is said not to be", async () => {
    await open("needle-in-the-hay");
    await say("needle-in-the-hay", "long ago");
    await Promise.all(Array.from({ length: 130 }, (_, number) => open(`hay-${number}`)));
    await Promise.all(Array.from({ length: 130 }, (_, number) => say(`hay-${number}`, "lately")));
    const alice = await come("alice");
    const search = alice.page.locator("#room-search");
    await search.fill("needle");
    await alice.page.locator('[data-room="needle-in-the-hay"]').waitFor();
    await search.fill("nowhere");
    await alice.page.locator("#rooms-note", { hasText: "No room of this name" }).waitFor();
    await alice.picture("no-such-room");
    await search.fill("");
    await until("scrolling comes to all of them", async () => {
      await alice.page.locator("nav[aria-label=Rooms]").evaluate((list) => { list.scrollTop = list.scrollHeight; });
      return await alice.page.locator(".room-entry").count() > 130;
    });
  });

  test("are shown as far as there is room for them, though most of the list is not for this person to read", async () => {
    const alice = await come("alice");
    await alice.page.route("**/api/rooms?*", async (route) => {
      const response = await route.fetch();
      const page = await response.json();
      await route.fulfill({ response, json: { ...page, rooms: page.rooms.filter(({ room }) => room === "needle-in-the-hay") } });
    });
    await alice.page.reload();
    await alice.page.locator('[data-room="needle-in-the-hay"]').waitFor();
    assert.equal(await alice.page.locator("#rooms-note").isVisible(), false);
    await alice.page.unrouteAll({ behavior: "ignoreErrors" });
  });

  test("keep their elements while the list is drawn anew, so that a press is a click", async () => {
    await open("pressed");
    const alice = await come("alice");
    const entry = alice.page.locator('[data-room="pressed"]');
    await entry.scrollIntoViewIfNeeded();
    await entry.hover();
    await alice.page.mouse.down();
    const listed = alice.page.waitForResponse((answer) => answer.url().includes("/api/rooms?"));
    await alice.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange"))); // it is asked for anew
    await (await listed).finished();
    await alice.page.evaluate(() => new Promise((resolve) => { setTimeout(() => requestAnimationFrame(resolve), 100); }));
    await alice.page.mouse.up();
    await alice.page.locator("#room-title", { hasText: "pressed" }).waitFor();
  });
});

describe("a room that is far down the list", () => {
  test("has its title all the same", async () => {
    await owner.command("far-down", "open_room", { title: "Far down the list" });
    await sayMany("far-down", 60);
    await Promise.all(Array.from({ length: 110 }, (_, number) => open(`above-${number}`)));
    await Promise.all(Array.from({ length: 110 }, (_, number) => say(`above-${number}`, "lately")));
    const alice = await come("alice", { room: "far-down" });
    await alice.page.locator("#room-title", { hasText: "Far down the list" }).waitFor();
  });
});

describe("what is unread in the list", () => {
  test("is what was read on no device, also in a browser that sees the room for the first time", async () => {
    for (const room of ["unread-here", "read-there"]) {
      await open(room);
      const own = connect({ url: server.url, user: "alice" });
      await own.command(room, "join");
      const held = own.room(room);
      const marked = new Promise((resolve) => {
        own.me.on("event", ({ name, data }) => name === "ReadMarkerMoved" && data.room === room && resolve());
      });
      await held.once("live");
      await say(room, "read on the phone");
      await until("it is there", () => held.unread === 1);
      held.seen();
      await marked;
      own.close();
    }
    await say("unread-here", "read nowhere");
    const alice = await come("alice");
    const count = (room) => alice.page.locator(`[data-room="${room}"] .count`);
    await count("unread-here").waitFor();
    assert.equal(await count("read-there").count(), 0);
    await alice.picture("unread-elsewhere");
    const phone = connect({ url: server.url, user: "alice" });
    const held = phone.room("unread-here");
    await held.once("live");
    held.seen();
    await count("unread-here").waitFor({ state: "detached" });
    // One's own words on another device are no news either.
    await phone.command("read-there", "post_message", { text: "my own answer" });
    await alice.page.locator('[data-room="read-there"]', { hasText: "my own answer" }).waitFor();
    assert.equal(await count("read-there").count(), 0);
    phone.close();
  });
});

describe("a reader so far back that the newest is not held", () => {
  test("is told of a thread without a number, and sees what they write without a line", async () => {
    await open("detached");
    const { revision: root } = await say("detached", "how it began");
    await say("detached", "an early answer", { reply_to: root });
    for (let part = 0; part < 2; part += 1) await sayMany("detached", 300);
    await say("detached", "a late answer", { reply_to: root });
    const proxy = await Proxy.start(server.port);
    const alice = await come("alice", { room: "detached" }, proxy.url);
    await alice.join();
    await until("the first lines are there", async () => {
      await alice.page.locator("#scroller").evaluate((scroller) => { scroller.scrollTop = 0; });
      return await alice.message("how it began").count() > 0;
    }, 40_000);
    await alice.message("how it began").getByRole("button", { name: "Open the thread", exact: true }).waitFor();
    await alice.picture("detached");
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    await alice.say("written far back");
    await alice.page.locator(".message.waiting", { hasText: "written far back" }).waitFor();
    // It is not what was said next after what is above it.
    await alice.page.locator("#timeline .gap", { hasText: "messages in between" }).waitFor();
    assert.equal(await alice.page.locator("#timeline .gap + .message.waiting").count(), 1);
    await alice.picture("detached-offline");
    proxy.restore();
    await until("it is sent", async () => await alice.message("written far back").count() === 1
      && await alice.page.locator(".message.waiting, .message.sending, .gap").count() === 0);
    await proxy.stop();
  });
});

describe("words that run from right to left", () => {
  test("are laid out so, and turn nothing beside them", async () => {
    await open("both-ways");
    await say("both-ways", "ثانياً!");
    await say("both-ways", "waves \u202e at you", { kind: "action" });
    const alice = await come("alice", { room: "both-ways" });
    await alice.hears("ثانياً!");
    const places = await alice.message("ثانياً!").locator(".text").evaluate((element) => {
      const [words] = element.childNodes;
      return [0, words.length - 1].map((at) => {
        const range = document.createRange();
        range.setStart(words, at);
        range.setEnd(words, at + 1);
        return range.getBoundingClientRect().x;
      });
    });
    assert.ok(places[1] < places[0], `the sign at the end is at ${places[1]}, the first letter at ${places[0]}`);
    const digits = await alice.message("waves").locator("time").evaluate((element) => {
      const [words] = element.childNodes;
      return Array.from(words.data, (_, at) => {
        const range = document.createRange();
        range.setStart(words, at);
        range.setEnd(words, at + 1);
        return range.getBoundingClientRect().x;
      });
    });
    assert.deepEqual(digits, [...digits].sort((one, other) => one - other), "the time reads as ever");
    const edges = await alice.message("waves").locator(".text").evaluate((element) => {
      const words = document.createRange();
      words.selectNodeContents(element);
      words.setEndBefore(element.querySelector("time"));
      return [words.getBoundingClientRect().right, element.querySelector("time").getBoundingClientRect().left];
    });
    assert.ok(edges[0] <= edges[1] + 1, `the words end at ${edges[0]}, the time stands at ${edges[1]}`);
    await alice.picture("both-ways");
  });
});

describe("what was read", () => {
  const marker = (person, room) => person.page.evaluate(async (id) => {
    const { connect: connectHere } = await import("/client.js");
    const probe = connectHere({ user: "alice", share: false });
    const it = probe.room(id);
    await it.once("live");
    const { seenRevision } = it;
    probe.close();
    return seenRevision;
  }, room);

  test("is what was in sight: not what came while another window had the focus, and then that too", async () => {
    await open("focus");
    const alice = await come("alice", { room: "focus" });
    await alice.join();
    await say("focus", "in sight");
    await alice.hears("in sight");
    await alice.page.evaluate(() => { document.hasFocus = () => false; });
    const { revision } = await say("focus", "behind another window");
    await alice.hears("behind another window");
    await alice.page.evaluate(() => {
      document.hasFocus = () => true;
      window.dispatchEvent(new Event("focus"));
    });
    await until("it is read", async () => await marker(alice, "focus") === revision);
  });

  test("is nothing that was never drawn, when a room is shown again from far back", async () => {
    await open("far-back");
    await open("elsewhere");
    for (let part = 0; part < 2; part += 1) await sayMany("far-back", 400, `part ${part}`);
    const alice = await come("alice", { room: "far-back" });
    await alice.join();
    const seen = [];
    alice.page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
      for (const line of String(payload).split("\n")) if (line.includes('"seen"')) seen.push(JSON.parse(line));
    }));
    await alice.page.reload();
    await until("the newest are let go", async () => {
      await alice.page.locator("#scroller").evaluate((scroller) => { scroller.scrollTop = 0; });
      return await alice.message("part 0 0").count() > 0 && await alice.page.locator("#pill").isVisible();
    }, 40_000);
    await alice.page.evaluate(() => { location.hash = "elsewhere"; });
    await alice.page.locator("#room-title", { hasText: "elsewhere" }).waitFor();
    const { revision } = await say("far-back", "not drawn");
    await alice.page.locator('[data-room="far-back"] .count', { hasText: "1" }).waitFor();
    await alice.page.evaluate(() => { location.hash = "far-back"; });
    await alice.page.locator("#room-title", { hasText: "far-back" }).waitFor();
    await alice.page.locator("#pill").waitFor();
    // What it has to say of this room it has said before it tells of the next.
    const next = await say("elsewhere", "and here?");
    await alice.page.evaluate(() => { location.hash = "elsewhere"; });
    await until("the other is read", () => seen.some((one) => one.room === "elsewhere" && one.revision === next.revision));
    assert.deepEqual(seen.filter((one) => one.room === "far-back" && one.revision >= revision), []);
    await alice.page.evaluate(() => { location.hash = "far-back"; });
    await alice.page.click("#pill");
    await alice.hears("not drawn");
    await until("then it is read", () => seen.some((one) => one.room === "far-back" && one.revision === revision));
  });
});

describe("the page", () => {
  test("shows on a phone all that there is to react with", async () => {
    await open("small");
    await say("small", "a message to react to");
    const alice = await come("alice", { room: "small", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await alice.join();
    await alice.message("a message to react to").tap();
    await alice.message("a message to react to").getByRole("button", { name: "React", exact: true }).click();
    await alice.picture("phone-reactions");
    for (const sign of ["👍", "👀"]) {
      const { x, width } = await alice.page.getByRole("button", { name: `React with ${sign}` }).boundingBox();
      assert.ok(x >= 0 && x + width <= 360, `${sign} is at ${x}`);
    }
  });

  test("gives its drawer of rooms the focus on a phone, and takes it back", async () => {
    await open("drawer");
    const alice = await come("alice", { room: "drawer", viewport: { width: 360, height: 740 }, reducedMotion: "no-preference" });
    await alice.join();
    const focused = () => alice.page.evaluate(() => document.activeElement.id);
    await alice.page.click("#drawer-open");
    assert.equal(await focused(), "drawer-close");
    await alice.picture("drawer");
    for (let step = 0; step < 40; step += 1) {
      await alice.page.keyboard.press("Tab");
      assert.equal(await alice.page.evaluate(() => document.activeElement.closest("main") === null), true, "what is covered takes no focus");
    }
    await alice.page.keyboard.press("Escape");
    assert.equal(await focused(), "drawer-open");
    await alice.page.keyboard.press("Control+k");
    assert.equal(await focused(), "room-search");
  });

  test("leaves on a phone nothing to be reached beneath its open panel", async () => {
    await open("beneath");
    const { revision } = await say("beneath", "a message with a thread");
    await say("beneath", "an answer", { reply_to: revision });
    const alice = await come("alice", { room: "beneath", viewport: { width: 360, height: 740 } });
    const { page } = alice;
    await alice.join();
    const inert = () => page.evaluate(() => [...document.querySelectorAll("main, #sidebar, #skip")].map((element) => element.inert));
    const covers = async (what) => {
      assert.deepEqual(await inert(), [true, true, true], what);
      for (let step = 0; step < 12; step += 1) {
        await page.keyboard.press("Tab");
        assert.ok(await page.evaluate(() => document.activeElement.closest("main, #sidebar, #skip") === null), what);
      }
      await page.locator("#panel-close").focus();
      await page.keyboard.press("Escape");
      assert.deepEqual(await inert(), [false, false, false], what);
    };
    await page.click("#members-open");
    await covers("the members");
    assert.equal(await page.evaluate(() => document.activeElement.id), "members-open");
    await page.getByRole("button", { name: /^Open the thread/ }).click();
    await page.locator("#panel .message", { hasText: "an answer" }).waitFor();
    await covers("a thread");
    await page.click("#members-open");
    await page.setViewportSize({ width: 1200, height: 740 });
    assert.deepEqual(await inert(), [false, false, false], "a panel beside the messages covers none");
  });

  test("closes a thread's row of signs by Escape, and not the thread", async () => {
    await open("signs");
    const { revision } = await say("signs", "a message with a thread");
    await say("signs", "an answer", { reply_to: revision });
    const alice = await come("alice", { room: "signs" });
    await alice.join();
    await alice.page.getByRole("button", { name: /^Open the thread/ }).click();
    const answer = alice.page.locator("#panel .message", { hasText: "an answer" });
    await answer.focus();
    await alice.page.keyboard.press("+");
    await answer.getByRole("button", { name: "React with 👍" }).waitFor();
    await alice.page.keyboard.press("Escape");
    assert.equal(await alice.page.locator("#panel").isVisible(), true);
    assert.equal(await answer.evaluate((element) => element === document.activeElement), true);
    await alice.page.keyboard.press("Escape");
    assert.equal(await alice.page.locator("#panel").isVisible(), false);
  });

  test("is reached by Tab, message by message, and says how", async () => {
    await open("by-tab");
    await sayMany("by-tab", 3);
    const alice = await come("alice", { room: "by-tab" });
    await alice.join();
    assert.match(await alice.composer.getAttribute("title"), /goes to the messages/);
    await alice.composer.focus();
    const where = () => alice.page.evaluate(() => document.activeElement.closest("#timeline > li")?.innerText ?? "");
    for (let step = 0; step < 5 && !await where(); step += 1) await alice.page.keyboard.press("Shift+Tab");
    assert.notEqual(await where(), "");
  });

  test("keeps the focus among the members while they come and go", async () => {
    await open("crowd");
    const alice = await come("alice", { room: "crowd" });
    await alice.join();
    await alice.page.click("#members-open");
    const whom = alice.page.getByLabel("Whom to invite");
    await whom.fill("half a na");
    await alice.page.locator(".member").first().evaluate((element) => { element.dataset.kept = "yes"; });
    const bob = connect({ url: server.url, user: "bob" });
    await bob.command("crowd", "join");
    await alice.page.locator(".member", { hasText: "bob" }).waitFor();
    assert.equal(await alice.page.locator('.member[data-kept="yes"]').count(), 1);
    assert.equal(await alice.page.evaluate(() => document.activeElement.value), "half a na");
    bob.close();
  });

  test("says that it was yesterday once it is", async () => {
    await open("midnight");
    const alice = await come("alice");
    await alice.page.clock.install();
    await alice.page.clock.setFixedTime(Date.now());
    await alice.page.evaluate(() => { location.hash = "midnight"; });
    await alice.join();
    await alice.say("said today");
    await alice.page.locator(".day", { hasText: "Today" }).waitFor();
    await alice.page.clock.setFixedTime(Date.now() + 86_400_000);
    await alice.page.evaluate(() => window.dispatchEvent(new Event("focus")));
    await alice.page.locator(".day", { hasText: "Yesterday" }).waitFor();
  });
});
