// The list of rooms where very many of them are not this person's to read: those that are come all the same.

import path from "node:path";
import { after, before, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { launch } from "./browser.mjs";
import { Server } from "./server.mjs";

/** More than the server looks at for one page. */
const OTHERS = 1_050;
let server;
let browser;

const mint = (user) => server.run("token", "--user", user, "--for", "1h");

before(async () => {
  server = await Server.start({
    prepare: async (made) => {
      const key = path.join(made.root, "token.key");
      await made.run("token", "--new-key", key);
      made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key, DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S: "0", DRAMATIS__LIMITS__USER__COMMANDS_PER_S: "0" };
    },
  });
  browser = await launch();
});

after(async () => {
  await browser.close();
  await server.stop();
});

test("the page goes on until it has this person's rooms, or the list ends", async () => {
  const line = async (user) => connect({ url: server.url, token: await mint(user), store: memoryStore() });
  const [alice, bob] = [await line("alice"), await line("bob")];
  await bob.command("quiet", "open_room", { title: "A quiet room", visibility: "invited" });
  // A client holds so many commands at a time.
  for (let number = 0; number < OTHERS; number += 350) {
    const ids = Array.from({ length: 350 }, (_, more) => `of-alice-${number + more}`);
    await Promise.all(ids.map((id) => alice.command(id, "open_room", { title: id, visibility: "invited" })));
  }
  alice.close();
  bob.close();

  const come = async (user) => {
    const context = await browser.newContext();
    await context.addInitScript((token) => sessionStorage.setItem("token", token), await mint(user));
    const page = await context.newPage();
    await page.goto(server.url);
    return page;
  };
  const [his, theirs] = [await come("bob"), await come("carol")];
  await his.locator("#rooms .room-name", { hasText: "A quiet room" }).waitFor();
  await theirs.locator("#rooms-note", { hasText: "No rooms yet" }).waitFor();
});
