// Who leaves a room or was removed from it: what the page says before and after, and the way back.

import assert from "node:assert/strict";
import path from "node:path";
import { describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { until } from "./browser.mjs";
import { Proxy, Server } from "./server.mjs";
import { come, owner, server } from "./visits.mjs";

const joinRow = (person) => person.page.locator("#join-row", { hasText: "You were removed" });

/** Someone who was a member and is away while `meanwhile(room)` happens; they are back then. */
async function away(context, id, meanwhile, { words, visibility } = {}) {
  await owner.command(id, "open_room", { title: id, ...(visibility && { visibility }) });
  await owner.command(id, "invite_member", { member: "alice" });
  const own = connect({ url: server.url, user: "alice" });
  await own.command(id, "join");
  own.close();
  const proxy = await Proxy.start(server.port);
  context.after(() => proxy.stop());
  const alice = await come("alice", { room: id }, proxy.url);
  await alice.composer.waitFor();
  await alice.isLive();
  proxy.cut();
  await alice.page.locator("#banner").waitFor();
  if (words) await alice.say(words);
  await meanwhile(id);
  proxy.restore();
  await alice.page.locator("#banner-now").click({ timeout: 2_000 }).catch(() => {}); // or it has tried by itself
  await alice.isLive();
  return alice;
}

const remove = (id) => owner.command(id, "remove_member", { member: "alice" });
const close = (id) => owner.command(id, "close_room");
const putBack = (person) => person.page.getByRole("button", { name: "Put this text back to where you write" });

describe("who was removed while they were away", () => {
  test("may join the room again, after a reload too", async (context) => {
    const alice = await away(context, "removed-away", remove);
    await joinRow(alice).waitFor();
    await alice.picture("removed-away");
    assert.equal(await alice.page.locator("#room-note").isVisible(), false);
    await alice.page.reload();
    await joinRow(alice).waitFor();
    await alice.page.click("#join");
    await alice.composer.waitFor();
    await alice.say("here again");
    await alice.hears("here again");
  });

  test("may write once they are in on another device", async (context) => {
    const alice = await away(context, "removed-elsewhere", remove);
    await joinRow(alice).waitFor();
    const phone = connect({ url: server.url, user: "alice" });
    await phone.command("removed-elsewhere", "join");
    await alice.composer.waitFor();
    assert.equal(await alice.page.locator("#join-row").isVisible(), false);
    phone.close();
  });

  test("is told by the room that only the invited may come back", async (context) => {
    const alice = await away(context, "removed-invited", remove, { visibility: "invited" });
    await joinRow(alice).waitFor();
    await alice.page.click("#join");
    await alice.page.locator("#join-error", { hasText: "invit" }).waitFor();
    await alice.picture("removed-invited");
  });

  test("is offered no way back into a room that was closed then", async (context) => {
    const alice = await away(context, "removed-closed", async (id) => {
      await remove(id);
      await close(id);
    });
    await alice.page.locator("#room-note", { hasText: "You cannot read this room" }).waitFor();
    assert.equal(await alice.page.locator("#join-row").isVisible(), false);
  });
});

describe("who was removed while they were away from a server that wants tokens", () => {
  test("may join the room again, of which they are told nothing else", async (context) => {
    const own = await Server.start({
      prepare: async (made) => {
        const key = path.join(made.root, "token.key");
        await made.run("token", "--new-key", key);
        made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key };
      },
    });
    context.after(() => own.stop());
    const mint = (user) => own.run("token", "--user", user, "--for", "1h");
    const keeper = connect({ url: own.url, token: await mint("owner") });
    context.after(() => keeper.close());
    await keeper.command("with-tokens", "open_room", { title: "With tokens" });
    const token = await mint("alice");
    const phone = connect({ url: own.url, token });
    await phone.command("with-tokens", "join");
    phone.close();
    await keeper.command("with-tokens", "remove_member", { member: "alice" });
    const alice = await come("alice", { room: "with-tokens" }, own.url);
    await alice.page.fill("#welcome-token", token);
    await alice.page.press("#welcome-token", "Enter");
    await alice.page.locator("#join-row", { hasText: "You may not read this room now" }).waitFor();
    await alice.picture("removed-with-tokens");
    await alice.join();
    await alice.say("here again");
    await alice.hears("here again");
  });
});

describe("words that were refused where nothing can be written any more", () => {
  for (const [what, id, meanwhile] of [["a closed room", "words-closed", close], ["a room they were removed from", "words-removed", remove]]) {
    test(`stay in sight, in ${what}`, async (context) => {
      const alice = await away(context, id, meanwhile, { words: "precious words" });
      await alice.page.locator(".message.refused", { hasText: "precious words" }).waitFor();
      await alice.page.locator(id === "words-closed" ? "#room-note" : "#join-row").waitFor();
      await alice.picture(id);
      await until("they are not to be put back", async () => await putBack(alice).count() === 0);
      if (meanwhile === remove) {
        await alice.page.click("#join");
        await putBack(alice).click();
        assert.equal(await alice.composer.inputValue(), "precious words");
      }
    });
  }
});

describe("who leaves a room", () => {
  /** What the page asks before; nobody leaves. */
  async function asked(id) {
    const alice = await come("alice", { room: id });
    await alice.composer.waitFor();
    const words = new Promise((resolve) => { alice.page.on("dialog", (dialog) => dialog.dismiss().then(() => resolve(dialog.message()))); });
    await alice.page.click("#members-open");
    await alice.page.getByRole("button", { name: "Leave this room" }).click();
    return words;
  }

  /** A room that alice is in. */
  async function open(id, visibility) {
    await owner.command(id, "open_room", { title: id, visibility });
    await owner.command(id, "invite_member", { member: "alice" });
    const own = connect({ url: server.url, user: "alice" });
    await own.command(id, "join");
    own.close();
  }

  test("is told before what brings them back", async () => {
    await open("leave-open", "open");
    assert.match(await asked("leave-open"), /still read it, and join again\.$/);
    await open("leave-invited", "invited");
    assert.match(await asked("leave-invited"), /only once someone invites you again/);
    await owner.command("leave-open", "set_visibility", { visibility: "invited" });
    assert.match(await asked("leave-open"), /only once someone invites you again/);
  });

  test("is told both where it is not known who may come in", async () => {
    await open("leave-long", "invited");
    await Promise.all(Array.from({ length: 300 }, (_, number) => owner.command("leave-long", "post_message", { text: `line ${number}` })));
    assert.match(await asked("leave-long"), /If it is for the invited alone, only a new invitation/);
  });
});
