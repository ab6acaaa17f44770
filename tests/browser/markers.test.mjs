// How far a person has read reaches the server whatever becomes of the line just then.

import path from "node:path";
import { after, before, describe, test } from "node:test";

import { connect, memoryStore } from "../../src/web/ui/client.js";
import { launch } from "./browser.mjs";
import { Server, until } from "./server.mjs";

let server;
let bob;
const open = new Set();

before(async () => {
  server = await Server.start();
  bob = client("bob");
});

after(async () => {
  for (const one of open) one.close();
  await server.stop();
});

function client(user, options = {}) {
  const made = connect({ url: server.url, user, ...options });
  open.add(made);
  return made;
}

let rooms = 0;
async function openRoom() {
  const id = `read-${(rooms += 1)}`;
  await bob.command(id, "open_room", { title: id });
  return id;
}

/** Whether another device hears of it: of a marker that moves later it does so by its own stream. */
function knows(device, id, revision) {
  device.me.on("event", () => {});
  return until("another device knows", () => device.room(id).seenRevision === revision);
}

describe("what was read in the last moment", () => {
  for (const transport of ["socket", "stream", "poll"]) {
    test(`is told before the line is closed, over a ${transport}`, async () => {
      const id = await openRoom();
      const alice = client("alice", { transports: [transport] });
      const room = alice.room(id);
      await room.once("live");
      const { revision } = await bob.command(id, "post_message", { text: "the last" });
      await until("it is unread", () => room.unread === 1);
      room.seen();
      alice.close();
      await knows(client("alice"), id, revision);
    });

    // A browser may end a stream before its page hears that it goes.
    if (transport !== "stream") test(`is told as the page goes, over a ${transport}`, async () => {
      const id = await openRoom();
      const browser = await launch();
      const page = await browser.newPage();
      await page.goto(`${server.url}/client.d.ts`);
      await page.evaluate(async ([room, way]) => {
        const { connect: connectTo } = await import("/client.js");
        globalThis.room = connectTo({ user: "alice", transports: [way] }).room(room);
      }, [id, transport]);
      await until("it is live", () => page.evaluate(() => globalThis.room.state === "live"));
      const { revision } = await bob.command(id, "post_message", { text: "the last" });
      await until("it is unread", () => page.evaluate(() => globalThis.room.unread === 1));
      await page.evaluate(() => {
        globalThis.room.seen();
        location.href = "about:blank";
      });
      await knows(client("alice"), id, revision);
      await browser.close();
    });
  }
});

describe("what was read while another token is asked for", () => {
  for (const transport of ["socket", "stream"]) {
    test(`is said again once that was taken, over a ${transport}`, async () => {
      const own = await Server.start({
        prepare: async (made) => {
          const key = path.join(made.root, "token.key");
          await made.run("token", "--new-key", key);
          made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key, DRAMATIS__AUTH__EXPIRED_GRACE_MS: "60000" };
        },
      });
      const mint = (life) => own.run("token", "--user", "alice", "--for", life);
      const [lasting, first] = [await mint("1h"), await mint("3s")];
      let give;
      const given = new Promise((resolve) => { give = resolve; });
      const at = { url: own.url, store: memoryStore() };
      const alice = connect({ ...at, transports: [transport], token: ({ again }) => (again ? given : first) });
      const phone = connect({ ...at, token: lasting });
      const refused = new Promise((resolve) => {
        alice.on("message", ({ type, id, code }) => type === "reject" && id === undefined && code === "token_expired" && resolve());
      });
      const { revision } = await phone.command("own", "open_room", { title: "Own" });
      const room = alice.room("own");
      await until("it is live", () => room.state === "live");
      await until("the token has run out", () => Date.now() > (JSON.parse(atob(first.split(".")[1])).exp + 1) * 1_000);
      room.seen(revision);
      await refused;
      give(lasting);
      await knows(phone, "own", revision).finally(() => {
        alice.close();
        phone.close();
      });
      await own.stop();
    });
  }
});
