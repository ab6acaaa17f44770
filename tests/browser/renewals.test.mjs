// While a client asks for another token it goes on with the last one, in Node against real server processes.

import assert from "node:assert/strict";
import path from "node:path";
import { after, describe, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { Tokens } from "../../src/web/ui/client/tokens.js";
import { Server, until } from "./server.mjs";

/** A server that wants tokens, asks for another once half of one's life is over, and closes no line for a while after it. */
const guarded = () => Server.start({
  prepare: async (made) => {
    const key = path.join(made.root, "token.key");
    await made.run("token", "--new-key", key);
    made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key, DRAMATIS__AUTH__EXPIRED_GRACE_MS: "60000", DRAMATIS__AUTH__REFRESH_AHEAD_MS: "3600000" };
  },
});

const open = new Set();
after(async () => {
  for (const one of open) await one();
});

describe("while another token is asked for", () => {
  test("the last one is had, and stays if there is no other", async () => {
    let answer;
    const tokens = new Tokens(({ again }) => (again ? new Promise((resolve, reject) => { answer = { resolve, reject }; }) : "the first"));
    assert.equal(await tokens.last(), "the first");
    const failed = tokens.next();
    assert.equal(await tokens.last(), "the first");
    answer.reject(new Error("the source is down"));
    await assert.rejects(failed, /the source is down/);
    assert.equal(await tokens.last(), "the first");
    const renewed = tokens.next();
    answer.resolve("the second");
    await renewed;
    assert.equal(await tokens.last(), "the second");
  });

  for (const transport of ["stream", "poll"]) {
    test(`a line by ${transport} stands as long as the last one holds`, async () => {
      const early = await guarded();
      const tokenFor = (life) => early.run("token", "--user", "alice", "--for", life);
      const [later, first] = [await tokenFor("1h"), await tokenFor("12s")];
      let [asked, isDown] = [0, true];
      const alice = connect({
        url: early.url, transports: [transport], store: memoryStore(),
        token: () => {
          asked += 1;
          if (asked === 1) return first;
          if (isDown) throw new Error("the source is down");
          return later;
        },
      });
      open.add(() => alice.close()).add(() => early.stop());
      await alice.command("early", "open_room", { title: "Early" });
      const room = alice.room("early");
      const renewed = new Promise((resolve) => { alice.on("message", ({ type }) => type === "authenticated" && resolve()); });
      await until("it is live", () => room.state === "live");
      const { connection } = alice.greeting;
      await until("another was asked for, in vain", () => asked > 1);
      const texts = [];
      room.on("event", ({ data }) => texts.push(data.text));
      room.post("with the last one").catch(() => {});
      await until("it is heard", () => texts.includes("with the last one"));
      isDown = false;
      await renewed;
      await room.post("with another");
      assert.equal(alice.greeting?.connection, connection);
    });
  }
});
