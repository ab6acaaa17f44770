// What the chat page holds of much, without a page: what was seen of rooms.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { KEPT_MAX, SeenCounts } from "../../src/web/ui/seen-counts.js";

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
