// What the chat page holds of much, without a page: the list of rooms, what was seen of them, and what
// happened to messages that are not held.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PAGE_LEN, RoomList } from "../../src/web/ui/room-list.js";
import { KEPT_MAX, SeenCounts } from "../../src/web/ui/seen-counts.js";
import { ITEMS_MAX, Window } from "../../src/web/ui/window.js";

/** A server's list; `hidden` are rooms that count as places and are not for this person to read. */
class Listing {
  constructor(count) {
    this.rooms = Array.from({ length: count }, (_, number) => `room-${number}`);
    this.hidden = new Set();
    this.asked = 0;
  }

  page({ limit, after }) {
    this.asked += 1;
    const from = after === undefined ? 0 : this.rooms.indexOf(after) + 1;
    const places = this.rooms.slice(from, from + limit);
    const isMore = from + limit < this.rooms.length;
    return { rooms: places.filter((room) => !this.hidden.has(room)).map((room) => ({ room })), ...(isMore && { next: places.at(-1) }) };
  }

  rise(room) {
    this.rooms = [room, ...this.rooms.filter((other) => other !== room)];
  }

  get shown() {
    return this.rooms.filter((room) => !this.hidden.has(room));
  }
}

const names = ({ rooms }) => rooms.map(({ room }) => room);

async function held(count, depth) {
  const server = new Listing(count);
  const list = new RoomList(async (page) => server.page(page));
  await list.refresh();
  while (list.depth < depth) await list.more(PAGE_LEN);
  return { server, list };
}

describe("the list of rooms", () => {
  test("is as the question asked last has it, whichever is answered last", async () => {
    const questions = [];
    const list = new RoomList(() => new Promise((resolve, reject) => { questions.push({ resolve, reject }); }));
    const told = [list.refresh(), list.refresh(), list.refresh()];
    questions[1].resolve({ rooms: [{ room: "newer" }] });
    await told[1];
    questions[0].resolve({ rooms: [{ room: "older" }] });
    await told[0];
    assert.deepEqual(names(list), ["newer"]);
    questions[2].reject(new Error("no answer"));
    await assert.rejects(told[2]);
    assert.deepEqual([names(list), list.hasFailed], [["newer"], true]);
  });

  test("is not said to fail by a question that another one overtook", async () => {
    const questions = [];
    const list = new RoomList(() => new Promise((resolve, reject) => { questions.push({ resolve, reject }); }));
    const told = [list.refresh(), list.refresh()];
    questions[1].resolve({ rooms: [] });
    await told[1];
    questions[0].reject(new Error("no answer"));
    await assert.rejects(told[0]);
    assert.equal(list.hasFailed, false);
  });

  test("has no room that vanished from it, wherever it stood", async () => {
    const { server, list } = await held(650, 400);
    for (const room of ["room-3", "room-99", "room-100", "room-250", "room-399"]) server.hidden.add(room);
    const { asked } = server;
    for (let page = 0; page < 3; page += 1) {
      await list.refresh();
      assert.ok(await list.review());
    }
    assert.deepEqual(names(list), server.shown.slice(0, 395));
    assert.equal(server.asked - asked, 6, "of one page each");
    while (await list.more(PAGE_LEN));
    assert.deepEqual(names(list), server.shown);
    assert.ok(list.isWhole);
  });

  test("has each room once that comes to its top while the rest is looked at again", async () => {
    const { server, list } = await held(650, 400);
    for (const room of ["room-350", "room-600", "room-20"]) {
      await list.review();
      server.rise(room);
      await list.refresh();
    }
    assert.deepEqual([...names(list)].sort(), server.rooms.filter((room) => names(list).includes(room)).sort());
    assert.deepEqual(names(list).slice(0, PAGE_LEN), server.rooms.slice(0, PAGE_LEN));
    assert.ok(names(list).length >= 400);
  });

  test("is no longer than its first page where nobody asked for more", async () => {
    const { server, list } = await held(300, PAGE_LEN);
    server.rise("room-250");
    await list.refresh();
    assert.deepEqual(names(list), server.rooms.slice(0, PAGE_LEN));
    assert.equal(await list.review(), false);
    await list.more(PAGE_LEN);
    assert.deepEqual(names(list), server.rooms.slice(0, 2 * PAGE_LEN));
  });

  test("is told once of a page that is asked for twice at a time", async () => {
    const { server, list } = await held(300, PAGE_LEN);
    assert.deepEqual(await Promise.all([list.more(PAGE_LEN), list.more(PAGE_LEN)]), [true, true]);
    assert.equal(server.asked, 2);
  });
});

describe("what was seen of rooms", () => {
  /** A browser's storage that counts what is written. */
  function storage() {
    const items = new Map();
    const made = {
      written: 0,
      getItem: (key) => items.get(key) ?? null,
      setItem(key, value) {
        made.written += 1;
        items.set(key, value);
      },
    };
    globalThis.window = { localStorage: made };
    return made;
  }

  test("is what any tab saw", () => {
    storage();
    const [one, other] = [new SeenCounts("alice"), new SeenCounts("alice")];
    for (const tab of [one, other]) {
      tab.listed("den", 3);
      tab.listed("lobby", 3);
      tab.keep();
    }
    one.seen("den", 9);
    one.keep();
    other.seen("lobby", 5);
    other.keep();
    const next = new SeenCounts("alice");
    assert.deepEqual([next.since("den", 10), next.since("lobby", 10), other.since("den", 10)], [1, 5, 1]);
  });

  test("is written where it has changed", () => {
    const place = storage();
    const counts = new SeenCounts("alice");
    counts.seen("den", 3);
    counts.keep();
    for (let look = 0; look < 5; look += 1) {
      counts.seen("den", 3);
      counts.listed("den", 3);
      counts.keep();
    }
    assert.equal(place.written, 1);
  });

  test("is kept of so many rooms, and of those that were looked at before those only listed", () => {
    const place = storage();
    const counts = new SeenCounts("alice");
    counts.seen("7", 2);
    counts.keep();
    for (let room = 0; room < 20_000; room += 1) counts.listed(`found-${room}`, 1);
    counts.keep();
    assert.equal(JSON.parse(place.getItem("seen-counts:alice")).length, KEPT_MAX);
    const next = new SeenCounts("alice");
    for (const room of ["7", "found-0", "found-19999"]) next.listed(room, 10);
    assert.deepEqual(["7", "found-0", "found-19999"].map((room) => next.since(room, 10)), [8, 9, 0]);
  });

  test("is nothing where something else is stored", () => {
    for (const text of ["{", "7", '{"den":3}']) {
      storage().setItem("seen-counts:alice", text);
      const counts = new SeenCounts("alice");
      counts.listed("den", 5);
      assert.equal(counts.since("den", 5), 0, text);
    }
  });
});

describe("what happens to a message that is not held", () => {
  /** A window, far from whose end its first message is; `tell` folds one more event. */
  function far() {
    const window = new Window("r");
    let revision = 0;
    const event = (name, data, by) => ({ name, data, by, revision: revision++, recorded_at: 0 });
    const tell = (name, data, by = "bob") => window.append(event(name, data, by), true);
    const first = event("MessagePosted", { text: "the first" }, "bob");
    for (let number = 0; number < ITEMS_MAX; number += 1) tell("MessagePosted", { text: `line ${number}` });
    return { window, tell, first };
  }

  const eventsOf = ({ changes }) => [...changes.values()].reduce((sum, kept) => sum + (kept.size ?? kept.length), 0);

  test("is held as far as it counts, however often it changes, and applied when the message is", () => {
    const { window, tell, first } = far();
    for (let time = 0; time < 20_000; time += 1) {
      tell("ReactionAdded", { target: 0, emoji: "👍" });
      tell("ReactionRemoved", { target: 0, emoji: "👍" });
      tell("MessageEdited", { target: 0, text: `wording ${time}` });
    }
    tell("ReactionAdded", { target: 0, emoji: "🎉" }, "carol");
    assert.equal(eventsOf(window), 3);
    window.isDetached = false;
    window.prepend([first], false);
    const [item] = window.items;
    assert.deepEqual([item.text, [...item.reactions.keys()]], ["wording 19999", ["🎉"]]);
  });

  test("is bounded where it happens to many, or in many ways to one", () => {
    for (const target of [() => 0, (number) => -number]) {
      const { window, tell } = far();
      for (let number = 0; number < 30_000; number += 1) tell("ReactionAdded", { target: target(number), emoji: "👍" }, `m-${number}`);
      assert.ok(eventsOf(window) <= 10_000, `${eventsOf(window)} are held`);
    }
  });

  test("is nothing after its removal, in whatever order both are told", () => {
    for (const names of [["ReactionAdded", "MessageEdited", "MessageRedacted"], ["MessageRedacted", "MessageEdited", "ReactionAdded"]]) {
      const { window, tell, first } = far();
      for (const name of names) tell(name, { target: 0, text: "another", ...(name === "ReactionAdded" && { emoji: "👍" }) });
      assert.equal(eventsOf(window), 1);
      window.prepend([first], false);
      const [item] = window.items;
      assert.deepEqual([item.isRemoved, item.reactions.size], [true, 0]);
    }
  });
});
