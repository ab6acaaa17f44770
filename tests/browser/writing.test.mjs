// What a person writes on the chat page is never lost in silence: not when it is too long, refused, put
// aside for an edit, or when the room has another history since.

import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { until } from "./browser.mjs";
import { Proxy, Server } from "./server.mjs";
import { come, owner, server } from "./visits.mjs";

/** A person in a room of their own. */
async function writer(title) {
  const alice = await come("alice");
  await alice.isLive();
  return { alice, room: await alice.openRoom(title) };
}

const value = (person) => person.composer.inputValue();

describe("what cannot be sent", () => {
  test("stays where it was written, with the reason, if it is too long", async () => {
    const { alice } = await writer("Too long");
    const text = "long ".repeat(16_000);
    await alice.say(text);
    await alice.page.locator("#composer-place .problem", { hasText: "too long to be sent" }).waitFor();
    assert.equal(await value(alice), text);
    await alice.say("shorter");
    await alice.hears("shorter");
    assert.equal(await value(alice), "");
  });

  test("is shown once it was refused, in its own room, after a reload too, and goes back to be written anew", async () => {
    const { alice, room } = await writer("Refused");
    await alice.say("a first one");
    await alice.hears("a first one");
    // More than a message may hold and less than a line does.
    const text = "w".repeat(30_000);
    await alice.openRoom("Another room");
    await alice.page.evaluate((id) => { location.hash = id; }, room);
    await alice.hears("a first one");
    await alice.composer.fill(text);
    await alice.page.evaluate(() => {
      // It is refused while another room is on show.
      document.querySelector("#composer-place form").requestSubmit();
      location.hash = "another-room";
    });
    await alice.page.locator("#room-title", { hasText: "Another room" }).waitFor();
    await alice.page.locator(`[data-room="${room}"]`, { hasText: "A message was not sent" }).waitFor();
    await alice.picture("refused-elsewhere");
    await alice.page.reload();
    await alice.page.evaluate((id) => { location.hash = id; }, room);
    await alice.page.locator(".refusal", { hasText: "Not sent" }).waitFor();
    await alice.picture("refused");
    assert.equal(await alice.page.getByRole("button", { name: "Send this message again" }).count(), 0, "the same would be refused again");
    await alice.page.getByRole("button", { name: "Put this text back to where you write" }).click();
    await alice.page.locator(".refusal").waitFor({ state: "detached" });
    assert.equal(await value(alice), text);
  });

  test("is shown for an edit as well, which goes back to its message", async () => {
    const { alice } = await writer("Refused edit");
    await alice.say("as it was");
    await alice.hears("as it was");
    await alice.act("as it was", "Edit");
    await alice.composer.fill(`as it would be ${"w".repeat(30_000)}`);
    await alice.composer.press("Enter");
    await alice.page.locator(".refusal", { hasText: "Your edit: not saved" }).waitFor();
    await alice.page.getByRole("button", { name: "Put this text back to where you write" }).click();
    await alice.page.locator(".context", { hasText: "Edit your message" }).first().waitFor();
    assert.match(await value(alice), /^as it would be w+$/);
    await alice.composer.fill("as it is");
    await alice.composer.press("Enter");
    await alice.message("as it is").locator(".edited").waitFor();
  });
});

describe("a draft", () => {
  test("comes back after an edit that was saved, or not, and with what it answers", async () => {
    const { alice } = await writer("Drafts");
    await alice.say("said before");
    await alice.hears("said before");
    await alice.act("said before", "Reply");
    await alice.composer.fill("half a thought");
    await alice.act("said before", "Edit");
    assert.equal(await value(alice), "said before");
    await alice.composer.press("Escape");
    assert.equal(await value(alice), "half a thought");
    await alice.act("said before", "Edit");
    await alice.composer.fill("said before, and edited");
    await alice.composer.press("Enter");
    await alice.message("and edited").locator(".edited").waitFor();
    assert.equal(await value(alice), "half a thought");
    await alice.page.locator(".context", { hasText: "Reply to" }).first().waitFor();
    await alice.composer.press("Enter");
    await alice.message("half a thought").locator(".quote").waitFor();
  });
});

describe("a room that has another history since", () => {
  test("is open and named as that says, and can be written in", async () => {
    const own = await Server.start();
    const alice = await come("alice", {}, own.url);
    await alice.isLive();
    await alice.openRoom("As it was");
    await alice.say("in the backup");
    await alice.hears("in the backup");
    await until("it is recorded", async () => await alice.page.locator(".message.sending").count() === 0);
    await own.run("backup", "create", "--data", own.data, "--store", `${own.root}/backups`);
    const keeper = connect({ url: own.url, user: "alice" });
    await keeper.command("as-it-was", "rename_room", { title: "Called otherwise" });
    await keeper.command("as-it-was", "close_room", {});
    keeper.close();
    await alice.page.locator("#room-note", { hasText: "closed" }).waitFor();
    await own.kill();
    await own.run("backup", "restore", "--store", `${own.root}/backups`, "latest", "--into", `${own.root}/restored`);
    own.data = `${own.root}/restored`;
    await own.up();
    await alice.composer.waitFor();
    await alice.page.locator("#room-title", { hasText: "As it was" }).waitFor();
    const height = await alice.composer.evaluate((text) => text.clientHeight);
    assert.ok(height > 15, `the place to write is ${height} px high`);
    await alice.say("on it goes");
    await alice.hears("on it goes");
    await own.stop();
  });
});

describe("a reply and an edit that were begun before a room's history was replaced", () => {
  test("are about no message any more, and their words stay", async () => {
    const own = await Server.start();
    const keeper = connect({ url: own.url, user: "owner" });
    await keeper.command("replaced", "open_room", { title: "Replaced" });
    const alice = await come("alice", { room: "replaced" }, own.url);
    await alice.join();
    await alice.say("in the backup");
    await alice.hears("in the backup");
    await until("it is recorded", async () => await alice.page.locator(".message.sending").count() === 0);
    await own.run("backup", "create", "--data", own.data, "--store", `${own.root}/backups`);
    await alice.say("after the backup");
    await alice.hears("after the backup");
    await alice.act("in the backup", "Reply");
    await alice.composer.fill("half a reply");
    await alice.act("after the backup", "Edit");
    await alice.composer.fill("after the backup, mended");
    await own.kill();
    await own.run("backup", "restore", "--store", `${own.root}/backups`, "latest", "--into", `${own.root}/restored`);
    own.data = `${own.root}/restored`;
    await own.up();
    await alice.page.locator("#composer-place .problem", { hasText: "history was replaced" }).waitFor();
    await alice.picture("mode-lost");
    assert.equal(await alice.page.locator("#composer-place .context").isVisible(), false);
    assert.equal(await value(alice), "half a reply\nafter the backup, mended");
    await keeper.command("replaced", "post_message", { text: "in the place of another" });
    await alice.hears("in the place of another");
    await alice.composer.press("Enter");
    await alice.hears("half a reply");
    assert.equal(await alice.page.locator(".quote").count(), 0);
    keeper.close();
    await own.stop();
  });
});

describe("an edit of what was removed meanwhile", () => {
  test("keeps its words, and says so", async () => {
    const { alice, room } = await writer("Removed meanwhile");
    await alice.say("to be removed");
    await alice.hears("to be removed");
    await until("it is recorded", async () => await alice.page.locator(".message.sending").count() === 0);
    await alice.act("to be removed", "Edit");
    await alice.composer.fill("better words");
    const own = connect({ url: server.url, user: "alice" });
    const { events } = await own.room(room).history();
    await own.room(room).redact(events.find(({ data }) => data.text === "to be removed").revision);
    own.close();
    await alice.page.locator(".removed").waitFor();
    await alice.composer.press("Enter");
    await alice.page.locator("#composer-place .problem", { hasText: "removed meanwhile" }).waitFor();
    assert.equal(await value(alice), "better words");
  });
});

describe("what is written without a line, into a storage that is full", () => {
  test("is said to be lost with the page", async () => {
    const proxy = await Proxy.start(server.port);
    const alice = await come("alice", {}, proxy.url);
    await alice.isLive();
    await alice.openRoom("Not kept");
    proxy.cut();
    await alice.page.locator("#banner").waitFor();
    await alice.say("kept");
    await alice.page.locator("#banner", { hasText: "kept and sent then" }).waitFor();
    await alice.page.evaluate(() => { Storage.prototype.setItem = () => { throw new Error("full"); }; });
    await alice.say("not kept");
    await alice.page.locator("#banner", { hasText: "if this page stays open" }).waitFor();
    await alice.picture("not-kept");
    const asked = new Promise((resolve) => { alice.page.on("dialog", (dialog) => dialog.dismiss().then(() => resolve(dialog.type()))); });
    alice.page.reload().catch(() => {});
    assert.equal(await asked, "beforeunload");
    proxy.restore();
    await alice.page.locator("#banner").waitFor({ state: "hidden" });
    await proxy.stop();
  });
});

describe("a room that is not there in the history that is since", () => {
  test("is put away, and shown anew once someone has opened it", async () => {
    const own = await Server.start();
    const alice = await come("alice", {}, own.url);
    await alice.isLive();
    await alice.openRoom("Gone");
    await alice.say("of the old history");
    await alice.hears("of the old history");
    await until("it is recorded", async () => await alice.page.locator(".message.sending").count() === 0);
    await own.kill();
    await rm(own.data, { recursive: true });
    await own.up();
    await alice.page.locator("#room-note", { hasText: "There is no room" }).waitFor();
    await alice.picture("gone");
    await alice.message("of the old history").waitFor({ state: "detached" });
    assert.equal(await alice.composer.isVisible(), false);
    const bob = connect({ url: own.url, user: "bob" });
    await bob.command("gone", "open_room", { title: "Here again" });
    await bob.command("gone", "post_message", { text: "of the new one" });
    bob.close();
    await alice.hears("of the new one");
    await alice.picture("here-again");
    assert.deepEqual(await alice.texts(), ["of the new one"]);
    assert.equal(await alice.page.locator("#room-note").isVisible(), false);
    await alice.join();
    await alice.say("hello again");
    await alice.hears("hello again");
    await own.stop();
  });
});

describe("who was removed from an open room", () => {
  test("may join it again", async () => {
    await owner.command("come-back", "open_room", { title: "Come back" });
    const alice = await come("alice", { room: "come-back" });
    await alice.join();
    await alice.say("here I am");
    await owner.command("come-back", "remove_member", { member: "alice" });
    await alice.page.locator("#join-row", { hasText: "You were removed" }).waitFor();
    await alice.picture("removed");
    await alice.page.click("#join");
    await alice.composer.waitFor();
    await alice.say("and here again");
    await alice.hears("and here again");
  });
});

describe("who was removed and came back elsewhere", () => {
  test("may write at once in another tab, and on another device", async () => {
    await owner.command("back-elsewhere", "open_room", { title: "Back elsewhere" });
    const alice = await come("alice", { room: "back-elsewhere" });
    await alice.join();
    await alice.say("here I am");
    const second = await alice.tab("back-elsewhere");
    await alice.hears("here I am", second);
    const phone = await come("alice", { room: "back-elsewhere" });
    await phone.hears("here I am");
    await owner.command("back-elsewhere", "remove_member", { member: "alice" });
    for (const page of [alice.page, second, phone.page]) await page.locator("#join-row", { hasText: "You were removed" }).waitFor();
    await alice.page.bringToFront();
    await alice.page.click("#join");
    await alice.composer.waitFor();
    for (const page of [second, phone.page]) {
      await page.bringToFront();
      await page.locator("#composer-place textarea").waitFor();
      await page.locator("#join-row").waitFor({ state: "hidden" });
    }
    await phone.say("and on this one");
    await alice.hears("and on this one", second);
  });
});

describe("a member, while the list of members is not to be had,", () => {
  test("is not told that they are none, and may write once it is", async () => {
    await owner.command("no-list", "open_room", { title: "No list" });
    const own = connect({ url: server.url, user: "alice" });
    await own.command("no-list", "join");
    own.close();
    await Promise.all(Array.from({ length: 60 }, (_, number) => owner.command("no-list", "post_message", { text: `line ${number}` })));
    const alice = await come("alice");
    let [isDown, asked] = [true, 0];
    await alice.page.route("**/api/rooms/no-list/members*", (route) => {
      asked += 1;
      return isDown ? route.fulfill({ status: 503, json: { code: "unavailable", retry: true, after_ms: 50 } }) : route.fallback();
    });
    await alice.page.clock.install();
    await alice.page.evaluate(() => { location.hash = "no-list"; });
    await alice.hears("line 59");
    await until("it was asked for very often", async () => {
      await alice.page.clock.fastForward(61_000);
      return asked > 25;
    });
    assert.equal(await alice.page.locator("#join-row").isVisible(), false);
    isDown = false;
    await alice.page.clock.fastForward(61_000);
    await alice.composer.waitFor();
  });
});

describe("the link past the list", () => {
  test("leads to where one writes, in the room that is on show", async () => {
    const { alice, room } = await writer("Skipped to");
    await alice.page.locator(".skip").focus();
    await alice.page.keyboard.press("Enter");
    assert.equal(await alice.page.evaluate(() => document.activeElement.tagName), "TEXTAREA");
    assert.equal(new URL(alice.page.url()).hash, `#${room}`);
  });
});

describe("the Enter key", () => {
  const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

  test("begins a line on a phone, where the button sends", async () => {
    await owner.command("lines", "open_room", { title: "Lines" });
    const alice = await come("alice", { room: "lines", ...phone });
    await alice.join();
    await alice.composer.pressSequentially("one");
    await alice.composer.press("Enter");
    await alice.composer.pressSequentially("two");
    assert.equal(await value(alice), "one\ntwo");
    await alice.page.getByRole("button", { name: "Send", exact: true }).click();
    await until("both lines are sent", async () => (await alice.texts()).join() === "one\ntwo");
    await alice.composer.fill("by a keyboard");
    await alice.composer.press("Control+Enter");
    await alice.hears("by a keyboard");
  });
});
