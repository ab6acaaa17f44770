// What became of a message, as the page shows it: reactions, removal, an edit that is on its way.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { until } from "./browser.mjs";
import { Proxy } from "./server.mjs";
import { come, owner, server } from "./visits.mjs";

const open = (id) => owner.command(id, "open_room", { title: id });
const say = (id, text, data = {}) => owner.command(id, "post_message", { text, ...data });
const inPanel = (person, text) => person.page.locator("#panel .message", { hasText: text });
const settled = (person) => until("it is recorded", async () => await person.page.locator(".message.sending, .mark").count() === 0);

describe("a removed message", () => {
  test("shows no reactions and takes none, in the conversation and in its thread", async () => {
    await open("removed");
    const { revision: root } = await say("removed", "how it began");
    const { revision } = await say("removed", "to be removed", { reply_to: root });
    await owner.command("removed", "add_reaction", { target: revision, emoji: "👍" });
    await owner.command("removed", "redact_message", { target: revision });
    await owner.command("removed", "add_reaction", { target: revision, emoji: "🎉" });
    await Promise.all(Array.from({ length: 120 }, (_, number) => say("removed", `line ${number}`)));
    await say("removed", "a late answer", { reply_to: root });
    const alice = await come("alice", { room: "removed" });
    await alice.join();
    await alice.message("a late answer").hover();
    await alice.act("a late answer", "Open thread");
    await inPanel(alice, "Message removed").waitFor();
    assert.equal(await inPanel(alice, "Message removed").locator(".chip").count(), 0);
    await until("it is there", async () => {
      await alice.page.locator("#scroller").evaluate((scroller) => { scroller.scrollTop = 0; });
      return await alice.message("Message removed").count() > 0;
    });
    assert.equal(await alice.message("Message removed").locator(".chip").count(), 0);
    await owner.command("removed", "add_reaction", { target: revision, emoji: "👀" });
    await owner.command("removed", "add_reaction", { target: root, emoji: "👀" });
    await alice.page.locator("#timeline .chip", { hasText: "👀" }).waitFor();
    await inPanel(alice, "how it began").locator(".chip").waitFor();
    assert.equal(await alice.page.locator(".chip").count(), 2, "of the first message, here and there");
    await alice.picture("removed-with-reactions");
  });
});

describe("reactions past the most that the server keeps", () => {
  test("change nothing", async () => {
    const alice = await come("alice");
    const found = await alice.page.evaluate(async () => {
      const { Window } = await import("/ui/window.js");
      const held = new Window("r");
      let revision = 0;
      const event = (name, data, by = "bob") => held.append({ name, data, by, revision: revision++, recorded_at: 0 }, true);
      event("MessagePosted", { text: "x" });
      for (let emoji = 0; emoji <= 100; emoji += 1) event("ReactionAdded", { target: 0, emoji: String(emoji) });
      const { reactions } = held.items[0];
      const counts = [reactions.size];
      event("ReactionAdded", { target: 0, emoji: "7" }, "carol");
      counts.push(reactions.get("7").size);
      event("ReactionRemoved", { target: 0, emoji: "8" });
      event("ReactionAdded", { target: 0, emoji: "100" });
      counts.push(reactions.size, reactions.has("100"));
      for (let member = 0; member < 10_000; member += 1) event("ReactionAdded", { target: 0, emoji: "0" }, `m-${member}`);
      counts.push([...reactions.values()].reduce((sum, { size }) => sum + size, 0));
      return counts;
    });
    assert.deepEqual(found, [100, 2, 100, true, 10_000]);
  });
});

describe("an edit that is saved without a line", () => {
  test("is shown at its message as waiting, and the next one starts from it", async (context) => {
    await open("edited-offline");
    const proxy = await Proxy.start(server.port);
    context.after(() => proxy.stop());
    const alice = await come("alice", { room: "edited-offline" }, proxy.url);
    await alice.join();
    await alice.say("as it was");
    await alice.hears("as it was");
    await settled(alice);
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    await alice.act("as it was", "Edit");
    await alice.composer.fill("as it will be");
    await alice.composer.press("Enter");
    await alice.message("as it will be").locator(".mark.waiting").waitFor();
    assert.equal(await alice.message("as it was").count(), 0);
    await alice.picture("edited-offline");
    await alice.act("as it will be", "Edit");
    assert.equal(await alice.composer.inputValue(), "as it will be");
    await alice.composer.fill("as it was"); // is no way to say nothing: the other edit waits
    await alice.composer.press("Enter");
    await alice.message("as it was").locator(".mark.waiting").waitFor();
    await alice.page.goto("about:blank");
    proxy.restore();
    await alice.page.goto(`${proxy.url}/?user=alice#edited-offline`);
    await alice.message("as it was").locator(".edited").waitFor();
    await settled(alice);
    const { events } = await owner.room("edited-offline").history();
    assert.deepEqual(events.filter(({ name }) => name === "MessageEdited").map(({ data }) => data.text), ["as it will be", "as it was"]);
  });

  test("is shown in the thread as well", async (context) => {
    await open("edited-in-thread");
    const proxy = await Proxy.start(server.port);
    context.after(() => proxy.stop());
    const alice = await come("alice", { room: "edited-in-thread" }, proxy.url);
    await alice.join();
    await alice.say("how it began");
    await alice.hears("how it began");
    await settled(alice);
    await alice.act("how it began", "Open thread");
    await inPanel(alice, "how it began").waitFor();
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    const reply = alice.page.locator("#panel textarea");
    await reply.press("ArrowUp");
    assert.equal(await reply.inputValue(), "how it began");
    await reply.fill("how it really began");
    await reply.press("Enter");
    await inPanel(alice, "how it really began").locator(".mark.waiting").waitFor();
    await alice.message("how it really began").locator(".mark.waiting").waitFor();
    await alice.picture("edited-in-thread");
    proxy.restore();
    await settled(alice);
    await inPanel(alice, "how it really began").locator(".edited").waitFor();
  });
});

describe("the keys that a place to write announces", () => {
  test("work in the thread for its own messages", async () => {
    await open("keys");
    await say("keys", "the first of a thread");
    const alice = await come("alice", { room: "keys" });
    await alice.join();
    await alice.act("the first of a thread", "Open thread");
    const reply = alice.page.locator("#panel textarea");
    await reply.fill("my answer");
    await reply.press("Enter");
    await inPanel(alice, "my answer").waitFor();
    await settled(alice);
    assert.doesNotMatch(await reply.getAttribute("title"), /T opens|R replies/);
    assert.match(await alice.composer.getAttribute("title"), /R replies/);
    await reply.press("Shift+Alt+ArrowUp");
    const focused = () => alice.page.evaluate(() => `${document.activeElement.closest("#panel") ? "panel" : "main"} ${document.activeElement.innerText ?? ""}`);
    assert.match(await focused(), /^panel [^]*my answer/);
    await alice.page.keyboard.press("r");
    assert.match(await focused(), /^panel [^]*my answer/);
    await alice.page.keyboard.press("ArrowUp");
    assert.match(await focused(), /^panel [^]*the first of a thread/);
    await alice.page.keyboard.press("ArrowDown");
    await alice.page.keyboard.press("e");
    assert.equal(await reply.inputValue(), "my answer");
  });
});

describe("a name that is refused", () => {
  test("stays where it was typed, with the reason, in the room and in a thread", async () => {
    await open("names");
    await say("names", "the first of a thread");
    const alice = await come("alice", { room: "names" });
    await alice.join();
    const refused = `/nick ${"x".repeat(300)}`;
    await alice.say(refused);
    await alice.page.locator("#composer-place .problem").waitFor();
    assert.equal(await alice.composer.inputValue(), refused);
    await alice.picture("nick-refused");
    await alice.say("/nick Alice B.");
    await alice.page.locator("#timeline", { hasText: "now known as Alice B." }).waitFor();
    assert.equal(await alice.composer.inputValue(), "");
    await alice.act("the first of a thread", "Open thread");
    const reply = alice.page.locator("#panel textarea");
    await reply.fill(refused);
    await reply.press("Enter");
    await alice.page.locator("#panel .problem", { hasText: "Not done" }).waitFor();
    assert.equal(await reply.inputValue(), refused);
  });
});
