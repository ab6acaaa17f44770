// What is left over from before, a reload or another server or a room that is closed since, has a way out.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { come as comes, owner, server } from "./visits.mjs";

async function come(name, options) {
  const person = await comes(name, options);
  await person.isLive();
  return person;
}

describe("of an earlier server at this address", () => {
  for (const [what, key, value] of [
    ["a token is not shown to one that takes none", "token", `x.${btoa(JSON.stringify({ sub: "alice" }))}.x`],
    ["the wish for a token is not kept up where none is wanted", "token-wanted", "This server asks for a token."],
  ]) {
    test(what, async () => {
      const alice = await come("alice");
      await alice.page.evaluate(([name, held]) => sessionStorage.setItem(name, held), [key, value]);
      await alice.page.reload();
      await alice.isLive();
      assert.equal(await alice.page.evaluate((name) => sessionStorage.getItem(name), key), "");
    });
  }
});

describe("an invitation of long ago", () => {
  test("is shown until it is answered, however much one's own stream has told since", async () => {
    await owner.command("long-ago", "open_room", { title: "Long ago", visibility: "invited" });
    await owner.command("long-ago", "invite_member", { member: "alice" });
    const own = connect({ url: server.url, user: "alice" });
    for (let count = 0; count < 60; count += 1) await own.command("me", "set_profile", { display_name: `Alice ${count}` });
    own.close();
    const alice = await come("alice");
    const decline = alice.page.getByRole("button", { name: "Decline Long ago" });
    await decline.waitFor();
    await alice.picture("invitation-of-long-ago");
    await decline.click();
    await decline.waitFor({ state: "detached" });
    const [listed] = await Promise.all([alice.page.waitForResponse(/\/api\/me/), alice.page.reload()]);
    await listed.finished();
    await alice.isLive();
    assert.equal(await decline.count(), 0);
  });
});

describe("what was refused while the storage is full", () => {
  test("stays in sight although another tab has kept something", async () => {
    const alice = await come("alice");
    const held = await alice.page.evaluate(async () => {
      const { Refusals } = await import("/ui/refusals.js");
      const refusals = new Refusals({ user: "alice", on: () => {} });
      const entry = { id: "1", createdAt: 1, frame: { room: "any", name: "post_message", data: { text: "refused" } } };
      const put = Storage.prototype.setItem;
      Storage.prototype.setItem = () => { throw new Error("full"); };
      refusals.keep({ id: "1", entry, refusal: { code: "rule" } });
      Storage.prototype.setItem = put;
      dispatchEvent(new StorageEvent("storage", { key: "refused:alice:2" }));
      const ids = refusals.of("any").map(({ id }) => id);
      refusals.remove("1");
      dispatchEvent(new StorageEvent("storage", { key: "refused:alice:2" }));
      return [ids, refusals.of("any").length];
    });
    assert.deepEqual(held, [["1"], 0]);
  });
});

describe("an invitation to a room that was closed since", () => {
  test("says so, and can be put away", async () => {
    await owner.command("closed-since", "open_room", { title: "Closed since" });
    const alice = await come("alice");
    await owner.command("closed-since", "invite_member", { member: "alice" });
    const join = alice.page.getByRole("button", { name: "Join Closed since" });
    await join.waitFor();
    await owner.command("closed-since", "close_room");
    await join.click();
    await alice.page.locator("#invitations .problem", { hasText: "closed" }).waitFor();
    await alice.picture("invitation-closed");
    await alice.page.getByRole("button", { name: "Decline Closed since" }).click();
    await join.waitFor({ state: "detached" });
  });
});

describe("a reaction of days ago that was never sent", () => {
  test("is shown in its room, and can be discarded", async () => {
    await owner.command("days-ago", "open_room", { title: "Days ago" });
    const { revision } = await owner.command("days-ago", "post_message", { text: "react to me" });
    const alice = await come("alice", { room: "days-ago" });
    await alice.join();
    await alice.page.evaluate(async (target) => {
      const { localStore } = await import("/client.js");
      const frame = { type: "command", id: "old", room: "days-ago", name: "add_reaction", data: { target, emoji: "🎉" } };
      localStore(`dramatis:${location.host}:alice:outbox`)
        .put({ id: "old", owner: sessionStorage.getItem("dramatis:tab"), frame, createdAt: Date.now() - 4 * 86_400_000, attempted: false, state: "waiting" });
    }, revision);
    await alice.page.reload();
    await alice.page.locator(".message.expired", { hasText: "Reaction 🎉" }).waitFor();
    await alice.picture("expired-reaction");
    await alice.page.getByRole("button", { name: "Discard this message" }).click();
    await alice.page.locator(".message.expired").waitFor({ state: "detached" });
    assert.equal(await alice.page.evaluate(() => Object.keys(localStorage).some((key) => key.endsWith(":outbox:old"))), false);
  });
});

describe("a room in the background", () => {
  test("is held by the page as far as one on show is", async () => {
    await owner.command("background", "open_room", { title: "Background" });
    const alice = await come("alice");
    const count = alice.page.evaluate(async () => {
      const [{ Conversation }, { Refusals }, { connect: open }] = await Promise.all(
        ["/ui/conversation.js", "/ui/refusals.js", "/client.js"].map((path) => import(path)));
      const client = open({ user: "alice", share: false });
      const conversation = new Conversation(client, "background", new Refusals(client));
      conversation.isShown = () => false;
      await new Promise((resolve) => { conversation.on("arrived", ({ text }) => text === "the last" && resolve()); });
      const { length } = conversation.window.items;
      client.close();
      return length;
    });
    await alice.page.evaluate(() => { location.hash = "background"; });
    await alice.page.locator("#room-about", { hasText: "here" }).waitFor();
    await Promise.all(Array.from({ length: 900 }, (_, number) => owner.command("background", "post_message", { text: `line ${number}` })));
    await owner.command("background", "post_message", { text: "the last" });
    assert.ok(await count <= 500, `${await count} are held`);
  });
});

describe("a room on show in a tab that is hidden", () => {
  test("is drawn all the same, and held as far as before, though a frame was due when it was hidden", async () => {
    await owner.command("hidden-tab", "open_room", { title: "Hidden tab" });
    const alice = await come("alice", { room: "hidden-tab" });
    await alice.page.locator("#room-about", { hasText: "here" }).waitFor();
    await alice.page.evaluate(() => new Promise((resolve) => {
      requestAnimationFrame(() => requestAnimationFrame(() => {
        window.requestAnimationFrame = () => 0; // held back from now on
        window.dispatchEvent(new Event("focus")); // draws what is in sight
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
        resolve();
      }));
    }));
    await Promise.all(Array.from({ length: 600 }, (_, number) => owner.command("hidden-tab", "post_message", { text: `line ${number}` })));
    await owner.command("hidden-tab", "post_message", { text: "the last" });
    await alice.hears("the last");
    const count = await alice.message("").count();
    assert.ok(count <= 500, `${count} are held`);
  });
});

describe("small things", () => {
  test("a title with marks on its letters proposes an id that can be read", async () => {
    const alice = await come("alice");
    await alice.page.click("#new-room");
    await alice.page.fill("#room-form-title", "Über uns: Café");
    assert.equal(await alice.page.inputValue("#room-form-id"), "uber-uns-cafe");
  });

  test("one's own stream is no room: not in the address, and not to be opened", async () => {
    const alice = await come("alice", { room: "me" });
    assert.equal(await alice.page.locator("#room-title").innerText(), "Pick a room");
    await alice.page.click("#new-room");
    await alice.page.fill("#room-form-title", "Me");
    await alice.page.press("#room-form-title", "Enter");
    await alice.page.locator("#room-form-error", { hasText: "your own stream" }).waitFor();
  });

  test("a name that begins with a flag has the whole of it for a picture", async () => {
    const alice = await come("alice");
    assert.equal(await alice.page.evaluate(async () => {
      const { paintAvatar } = await import("/ui/dom.js");
      const element = document.createElement("span");
      paintAvatar(element, "bob", "🇩🇪 Bob");
      return element.textContent;
    }), "🇩🇪");
  });

  test("the last words of a room have the list's width where no number is beside them", async () => {
    await owner.command("wide", "open_room", { title: "Wide" });
    await owner.command("wide", "post_message", { text: "words without end ".repeat(20) });
    const alice = await come("alice");
    const right = async (part) => {
      const { x, width } = await alice.page.locator(`[data-room="wide"] ${part}`).boundingBox();
      return x + width;
    };
    assert.ok(await right(".room-last") >= await right(".room-at") - 1);
    await owner.command("wide", "post_message", { text: "more of them ".repeat(20) });
    const count = alice.page.locator('[data-room="wide"] .count');
    await count.waitFor();
    assert.ok(await right(".room-last") <= (await count.boundingBox()).x);
  });

  test("a long text that was refused leaves the screen to what others say", async () => {
    await owner.command("refused-long", "open_room", { title: "Refused, long" });
    const alice = await come("alice", { room: "refused-long" });
    await alice.join();
    await owner.command("refused-long", "post_message", { text: "said before" });
    await alice.hears("said before");
    await alice.say("x".repeat(9_000));
    const refused = alice.page.locator(".message.refused");
    await refused.waitFor();
    assert.ok((await refused.boundingBox()).height < 300);
    assert.ok(await alice.message("said before").evaluate((element) => element.getBoundingClientRect().top > 0));
  });

  test("a member with a long name is told all the same which of the members is meant", async () => {
    await owner.command("long-name", "open_room", { title: "Long name" });
    const alice = await come("alice", { room: "long-name" });
    await alice.join();
    await alice.say("/nick Alice of the Wonderland with a rather long name indeed");
    await alice.page.click("#members-open");
    const about = alice.page.locator(".member .dim", { hasText: "you · alice" });
    await about.waitFor();
    assert.ok(await about.evaluate(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth));
  });

  test("the page of the HTTP API proposes bodies that are messages", async () => {
    const alice = await come("alice");
    await alice.page.goto(`${server.url}/docs`);
    for (const path of ["/api/commands", "/api/frames", "/api/stream", "/api/poll"]) {
      const operation = alice.page.locator(".operation", { has: alice.page.locator(".path", { hasText: new RegExp(`^${path}$`) }) })
        .filter({ has: alice.page.locator(".method", { hasText: "POST" }) });
      const body = JSON.parse(await operation.locator("textarea").inputValue());
      assert.equal(typeof body.type, "string", path);
    }
  });

  test("the page of the HTTP API offers to stop what is sent anew while it is read", async () => {
    const { page } = await come("alice");
    await page.goto(`${server.url}/docs`);
    const operation = page.locator(".operation", { has: page.locator(".path", { hasText: /^\/api\/events$/ }) }).first();
    await operation.locator("summary").click();
    for (const [name, value] of [["room", "background"], ["name", "RoomOpened"], ["follow", "true"]]) {
      await operation.getByLabel(name, { exact: true }).fill(value);
    }
    const stop = operation.getByRole("button", { name: "Stop reading" });
    for (let time = 0; time < 2; time += 1) {
      await operation.getByRole("button", { name: "Send" }).click();
      await operation.locator("pre", { hasText: "RoomOpened" }).waitFor();
    }
    assert.ok(await stop.isVisible());
    await stop.click();
    await stop.waitFor({ state: "hidden" });
  });

  test("the types' own imports name files, as Node's way to find modules asks for", async () => {
    const text = await readFile(new URL("../../src/web/ui/client.d.ts", import.meta.url), "utf8");
    const paths = [...text.matchAll(/from "(\.[^"]+)"/g)].map(([, path]) => path);
    assert.ok(paths.length > 0 && paths.every((path) => path.endsWith(".js")), paths.join());
  });
});
