// The page of the HTTP API, where the server wants tokens: one field for all that is asked.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { launch } from "./browser.mjs";
import { Server } from "./server.mjs";

let server;
let browser;

before(async () => {
  server = await Server.start({
    prepare: async (made) => {
      const key = path.join(made.root, "token.key");
      await made.run("token", "--new-key", key);
      made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key };
    },
  });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

describe("the page of the HTTP API", () => {
  test("shows a token that it keeps nowhere", async () => {
    const token = await server.run("token", "--user", "alice", "--for", "1h");
    const page = await browser.newPage();
    await page.goto(`${server.url}/docs`);
    const operation = page.locator(".operation", { has: page.locator(".path", { hasText: /^\/api\/me$/ }) }).first();
    await operation.locator("summary").click();
    const send = () => operation.getByRole("button", { name: "Send" }).click();
    await send();
    await operation.locator(".status-bad", { hasText: "401" }).waitFor();
    await page.getByLabel("Token").fill(token);
    await send();
    await operation.locator(".status-good", { hasText: "200" }).waitFor();
    await operation.locator("pre", { hasText: "alice" }).waitFor();
    assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, ""]);
    await page.reload();
    await page.locator(".operation").first().waitFor();
    assert.equal(await page.getByLabel("Token").inputValue(), "");
    await page.close();
  });
});
