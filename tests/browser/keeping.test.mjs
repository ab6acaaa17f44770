// What a person has in hand on the chat page stays while the page is drawn anew: the end of a room that they
// follow, the keyboard's place, what they selected, and what a draft answers or edits.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { until } from "./browser.mjs";
import { Server } from "./server.mjs";
import { come, owner } from "./visits.mjs";

const open = (id) => owner.command(id, "open_room", { title: id });
const say = (id, text, data = {}) => owner.command(id, "post_message", { text, ...data });
const sayMany = (id, count) => Promise.all(Array.from({ length: count }, (_, number) => say(id, `line ${number}`)));
const value = (person) => person.composer.inputValue();
const context = (person) => person.page.locator("#composer-place .context");
const settled = (person) => until("it is recorded", async () => await person.page.locator(".message.sending").count() === 0);
const goTo = async (person, room) => {
  await person.page.evaluate((id) => { location.hash = id; }, room);
  await person.page.locator("#room-title", { hasText: room }).waitFor();
};

/** A frame later all that was due is drawn. */
const drawn = (page) => page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));

/** Where the keyboard is: in which message, on what. */
const place = (page) => page.evaluate(() => {
  const { tagName, className } = document.activeElement;
  return [document.activeElement.closest("#timeline > li")?.querySelector(".text").textContent ?? null, tagName, className];
});

describe("the end of a room that is read along", () => {
  const gap = (page) => page.locator("#scroller").evaluate(({ scrollTop, scrollHeight, clientHeight }) => scrollHeight - scrollTop - clientHeight);
  const isAtEnd = (person, text) => until(`“${text}” is in sight`, async () => {
    await person.hears(text);
    return await gap(person.page) < 2;
  });

  test("is followed until the reader scrolls, whatever else takes of the room", async () => {
    await open("along");
    await sayMany("along", 60);
    const alice = await come("alice", { room: "along" });
    await alice.page.locator("#join-row").waitFor();
    await isAtEnd(alice, "line 59");
    // A scroll of before is told of after a bar came and before the page hears of the new sizes.
    await alice.page.evaluate(() => {
      document.querySelector("footer.foot").style.paddingTop = "100px";
      document.querySelector("#scroller").dispatchEvent(new Event("scroll"));
    });
    await say("along", "after the bar");
    await isAtEnd(alice, "after the bar");
    await alice.page.locator("#scroller").hover();
    await alice.page.mouse.wheel(0, -400);
    await until("it is scrolled", async () => await gap(alice.page) > 200);
    await drawn(alice.page);
    const where = () => alice.page.locator("#scroller").evaluate(({ scrollTop }) => scrollTop);
    const before = await where();
    await say("along", "after the scroll");
    await alice.page.locator("#pill", { hasText: "1 new message" }).waitFor();
    assert.equal(await where(), before);
    await alice.page.click("#pill");
    await isAtEnd(alice, "after the scroll");
  });
});

describe("the keyboard's place in the messages", () => {
  test("stays where it is while the message in hand is drawn anew", async () => {
    await open("in-hand");
    await say("in-hand", "first");
    const { revision } = await say("in-hand", "see https://example.org/a_(b).");
    const alice = await come("alice", { room: "in-hand" });
    await alice.join();
    const message = alice.message("see https");
    await message.focus();
    await alice.page.keyboard.press("+");
    await alice.page.keyboard.press("Enter");
    await message.getByRole("button", { name: /👍 1 by alice/ }).waitFor();
    await drawn(alice.page);
    const [text, ...on] = await place(alice.page);
    assert.match(text, /see https/);
    assert.equal(on[0], "LI");

    await message.locator("a").focus();
    await owner.command("in-hand", "add_reaction", { target: revision, emoji: "👍" });
    const chip = message.getByRole("button", { name: /👍 2 by/ });
    await chip.waitFor();
    await owner.command("in-hand", "add_reaction", { target: revision, emoji: "🎈" });
    await message.getByRole("button", { name: /🎈 1 by/ }).waitFor();
    assert.equal((await place(alice.page))[1], "A");
    assert.equal(await message.locator("a").getAttribute("href"), "https://example.org/a_(b)");

    await chip.focus();
    await alice.page.keyboard.press("Enter");
    await message.getByRole("button", { name: /👍 1 by owner/ }).waitFor();
    assert.deepEqual((await place(alice.page)).slice(1), ["BUTTON", "chip"]);
    // With the last of them the chip itself is gone.
    await owner.command("in-hand", "remove_reaction", { target: revision, emoji: "👍" });
    await message.getByRole("button", { name: /👍/ }).waitFor({ state: "detached" });
    assert.equal((await place(alice.page))[1], "LI");

    await message.locator("a").focus();
    await owner.command("in-hand", "edit_message", { target: revision, text: "see https://example.org/c" });
    await message.locator(".edited").waitFor();
    assert.equal((await place(alice.page))[1], "LI");
  });

  test("and what is selected there is kept when others react", async () => {
    await open("selected");
    const { revision } = await say("selected", "words to be copied");
    const alice = await come("alice", { room: "selected" });
    await alice.hears("words to be copied");
    await alice.page.evaluate(() => getSelection().selectAllChildren(document.querySelector("#timeline .message .text")));
    await owner.command("selected", "add_reaction", { target: revision, emoji: "🎈" });
    await alice.page.getByRole("button", { name: /🎈 1 by/ }).waitFor();
    assert.equal(await alice.page.evaluate(() => getSelection().toString()), "words to be copied");
  });

  test("is the messages where a room is found that one does not write in, and else where one writes", async () => {
    await open("found-mine");
    await open("found-other");
    await say("found-other", "read along");
    const alice = await come("alice", { room: "found-mine" });
    await alice.join();
    const search = alice.page.locator("#room-search");
    const find = async (room) => {
      await search.fill(room);
      await alice.page.locator(`[data-room="${room}"]`).waitFor();
      await search.press("Enter");
      await alice.page.locator("#room-title", { hasText: room }).waitFor();
    };
    const focused = () => alice.page.evaluate(() => document.activeElement.id || document.activeElement.tagName);
    await find("found-other");
    await alice.page.locator("#join-row").waitFor();
    await until("the messages have it", async () => await focused() === "scroller");
    await find("found-mine");
    await until("the place to write has it", async () => await focused() === "TEXTAREA");
  });
});

describe("a message whose event comes before its answer", () => {
  test("is there once", async () => {
    const alice = await come("alice");
    const counts = await alice.page.evaluate(async () => {
      const [{ Conversation }, { Emitter }] = await Promise.all(["/ui/conversation.js", "/client/emitter.js"].map((path) => import(path)));
      const frame = { room: "r", name: "post_message", data: { text: "once", kind: "text" } };
      const entry = { id: "c", state: "sent", createdAt: 0, frame };
      const room = Object.assign(new Emitter(), { cursor: { after: 0 }, unread: 0, unfollow: () => {} });
      const client = Object.assign(new Emitter(), {
        user: "alice", pending: [entry], status: { state: "live" }, room: () => room, api: { members: async () => [] },
      });
      const conversation = new Conversation(client, "r", Object.assign(new Emitter(), { of: () => [] }));
      const count = () => conversation.window.items.length + conversation.outgoing.length;
      const found = [count()];
      room.emit("reset", { epoch: "e" });
      room.emit("event", { name: "MessagePosted", revision: 0, by: "alice", command: "c", occurred_at: 0, data: frame.data });
      room.emit("live");
      found.push(count());
      client.pending = [];
      client.emit("settled", { entry, ack: { revision: 0 } });
      found.push(count());
      conversation.close();
      return found;
    });
    assert.deepEqual(counts, [1, 1, 1]);
  });
});

describe("messages of a group", () => {
  test("are each said to be whose they are", async () => {
    await open("grouped");
    await say("grouped", "the first");
    await say("grouped", "the second");
    const alice = await come("alice", { room: "grouped" });
    const grouped = alice.page.locator("#timeline .grouped", { hasText: "the second" });
    await grouped.waitFor();
    assert.match(await grouped.ariaSnapshot(), /owner: the second/);
  });
});

describe("an address among signs that turn the direction", () => {
  test("is linked without them, and turns nothing behind it", async () => {
    await open("turned");
    await say("turned", "\u2067https://example.org/a");
    const alice = await come("alice", { room: "turned" });
    await alice.hears("https://example.org/a");
    assert.equal(await alice.message("https").locator("a").getAttribute("href"), "https://example.org/a");
    assert.equal(await alice.message("https").locator(".text").textContent(), "\u2067https://example.org/a\u2069");
  });
});

describe("what a draft answers or edits", () => {
  test("is kept with it while another room is on show, and over a reload", async () => {
    await open("drafted");
    await open("meanwhile");
    const { revision } = await say("drafted", "a question");
    const alice = await come("alice", { room: "drafted" });
    await alice.join();
    await alice.say("my words");
    await alice.hears("my words");
    await settled(alice);
    await alice.act("a question", "Reply");
    await alice.composer.fill("half an answer");
    await alice.act("my words", "Edit");
    await alice.composer.fill("my better words");
    await goTo(alice, "meanwhile");
    assert.equal(await value(alice), "");
    assert.equal(await context(alice).isVisible(), false);
    await goTo(alice, "drafted");
    await alice.page.reload();
    await context(alice).filter({ hasText: "Edit your message" }).waitFor();
    assert.equal(await value(alice), "my better words");
    await alice.composer.press("Enter");
    await alice.message("my better words").locator(".edited").waitFor();
    await context(alice).filter({ hasText: "Reply to owner: a question" }).waitFor();
    assert.equal(await value(alice), "half an answer");
    await alice.page.reload();
    await context(alice).filter({ hasText: "Reply to owner: a question" }).waitFor();
    await alice.picture("draft-of-a-reply");
    await alice.composer.press("Enter");
    await alice.message("half an answer").locator(".quote", { hasText: "a question" }).waitFor();
    await settled(alice);

    await alice.act("a question", "Reply");
    await alice.composer.fill("another answer");
    await goTo(alice, "meanwhile");
    await owner.command("drafted", "redact_message", { target: revision });
    await goTo(alice, "drafted");
    await alice.page.locator("#composer-place .problem", { hasText: "removed meanwhile" }).waitFor();
    assert.equal(await value(alice), "another answer");
    assert.equal(await context(alice).isVisible(), false);
    await alice.composer.press("Enter");
    await alice.hears("another answer");
    assert.equal(await alice.message("another answer").locator(".quote").count(), 0);
    await alice.page.reload();
    await alice.composer.waitFor();
    assert.equal(await value(alice), "", "what was sent is no draft any more");
  });

  test("is said to be gone where the room has another history since", async () => {
    const own = await Server.start();
    const keeper = connect({ url: own.url, user: "owner" });
    await keeper.command("replaced", "open_room", { title: "replaced" });
    const alice = await come("alice", { room: "replaced" }, own.url);
    await alice.join();
    await alice.say("in the backup");
    await alice.hears("in the backup");
    await settled(alice);
    await own.run("backup", "create", "--data", own.data, "--store", `${own.root}/backups`);
    await alice.say("after the backup");
    await alice.hears("after the backup");
    await settled(alice);
    await alice.act("after the backup", "Edit");
    await alice.composer.fill("after the backup, mended");
    // The page is elsewhere, and knows nothing of either history when it comes back.
    await alice.page.goto("about:blank");
    await own.kill();
    await own.run("backup", "restore", "--store", `${own.root}/backups`, "latest", "--into", `${own.root}/restored`);
    own.data = `${own.root}/restored`;
    await own.up();
    const { revision } = await keeper.command("replaced", "post_message", { text: "in the place of another" });
    await alice.page.goto(`${own.url}/?user=alice#replaced`);
    await alice.page.locator("#composer-place .problem", { hasText: "history was replaced" }).waitFor();
    assert.equal(await value(alice), "after the backup, mended");
    assert.equal(await context(alice).isVisible(), false);
    await alice.composer.press("Enter");
    await alice.hears("after the backup, mended");
    await settled(alice);
    const { events } = await keeper.room("replaced").history();
    assert.deepEqual(events.filter(({ name, data }) => name === "MessageEdited" || data.target === revision), []);
    keeper.close();
    await own.stop();
  });
});
