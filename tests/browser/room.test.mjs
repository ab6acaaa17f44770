// A room as one follower sees it, told what a server says, without one.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Room } from "../../src/web/ui/client/room.js";

const EPOCH = "00000000000000aa.0";

const OTHER_EPOCH = "00000000000000bb.0";

/** A room, what it sends, and what it emits. */
function follow(from, request) {
  const [sent, told] = [[], []];
  const room = new Room("r", {
    user: "alice", isLive: true, send: (message) => sent.push(message), forget: () => {}, request,
  }, from);
  for (const name of ["reset", "event", "state", "live", "denied"]) {
    room.on(name, (value) => told.push(value?.revision === undefined ? name : `${name} ${value.revision}`));
  }
  room.subscribe();
  const answer = (how, head, more = {}) => room.take({ type: "subscribed", id: sent.at(-1).id, room: "r", epoch: EPOCH, head, how, ...more });
  const event = (revision, by = "bob") => room.take({ type: "event", room: "r", revision, by, name: "MessagePosted", data: { text: "x" } });
  const state = (revision, events = []) => room.take({ type: "room_state", room: "r", revision, state: {}, events });
  const live = (revision) => room.take({ type: "live", room: "r", revision });
  return { room, sent, told, answer, event, state, live };
}

test("a state that another tab asked for makes a room skip nothing", () => {
  const { room, sent, told, answer, event, state, live } = follow({ epoch: EPOCH, after: 4 });
  answer("events", 900);
  event(5);
  state(900); // the tabs' line is at that place now
  assert.equal(room.cursor.after, 5);
  assert.equal(sent.length, 2);
  assert.deepEqual([sent[1].type, sent[1].after, sent[1].catch_up], ["subscribe", 5, undefined]);
  live(900); // still of the other's wish
  answer("events", 900);
  for (let revision = 6; revision <= 900; revision += 1) event(revision);
  live(900);
  assert.equal(room.state, "live");
  assert.deepEqual(told, [...Array.from({ length: 896 }, (_, index) => `event ${index + 5}`), "live 900"].map((one) => one.replace("live 900", "live")));
  state(900);
  assert.equal(sent.length, 2, "a state of where it stands already takes nothing away");
});

test("a room that is told it is live past what it has asks for the rest", () => {
  const { room, sent, answer, event, live } = follow({ epoch: EPOCH, after: 4 });
  answer("events", 9);
  event(5);
  live(9);
  assert.notEqual(room.state, "live");
  assert.equal(sent.at(-1).after, 5);
});

test("a room that wants a state takes no events in its place, and asks again, but not for ever", () => {
  const { room, sent, told, answer, event, state, live } = follow({ catchUp: "state" });
  answer("state", 900);
  event(6); // of another tab's catching up
  live(900);
  assert.deepEqual(told, ["reset"]);
  assert.equal(sent.at(-1).catch_up, "state");
  answer("state", 900);
  state(900);
  live(900);
  assert.deepEqual(told, ["reset", "reset", "state 900", "live"]);

  const other = follow({ catchUp: "state" });
  for (let round = 0; round < 2; round += 1) {
    other.answer("state", 900);
    other.live(900);
  }
  assert.equal(other.sent.at(-1).catch_up, undefined, "the events since are taken then");
  other.answer("events", 900);
  other.event(900);
  other.live(900);
  assert.equal(other.room.state, "live");
  assert.equal(room.state, "live");
});

test("a room without a place is asked for over a good minute, and then given up", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { room, sent, told, answer } = follow();
  answer("denied", null, { code: "unavailable" });
  assert.deepEqual([room.state, told], ["joining", []]);
  for (let second = 0; second < 180 && room.state === "joining"; second += 1) {
    const before = sent.length;
    context.mock.timers.tick(1_000);
    // To a `subscribe` the server says that this is not a matter of time: a line of one's own may end all the same.
    if (sent.length > before) room.refused({ type: "reject", id: sent.at(-1).id, code: "rate_limited", message: "too many", retry: false });
  }
  assert.equal(room.state, "denied");
  assert.ok(sent.length > 5 && sent.length < 12, `asked ${sent.length} times`);

  const asked = follow();
  asked.room.refused({ type: "reject", id: asked.sent.at(-1).id, code: "rate_limited", message: "too many", retry: false });
  assert.equal(asked.room.state, "denied", "a room that was asked for with as many as may be is refused at once");
});

test("what is read up to a place within is no longer unread, here as on other devices", () => {
  const { room, answer, event, live } = follow();
  answer("events", 9);
  for (let revision = 5; revision <= 9; revision += 1) event(revision);
  live(9);
  for (let revision = 10; revision <= 19; revision += 1) event(revision);
  assert.equal(room.unread, 10);
  room.seen(14);
  assert.equal(room.unread, 5);
  room.seenElsewhere(16);
  assert.equal(room.unread, 3);
  room.seen();
  assert.equal(room.unread, 0);
  room.unfollow();
});

/** One that holds 900 to 949 of which the marker lies at 849, and answers what it is asked of the past. */
function partly(more = {}) {
  const asked = [];
  const made = follow({ epoch: EPOCH, after: 899 }, (frame) => {
    asked.push([frame.before, frame.limit]);
    const from = Math.max(0, frame.before - frame.limit);
    const events = Array.from({ length: frame.before - from }, (_, index) => ({ revision: from + index, by: index % 2 ? "bob" : "alice", name: "MessagePosted" }));
    return Promise.resolve({ events, more: from > 0 });
  });
  made.answer("events", 949, { seen: 849, unread: 75, ...more });
  for (let revision = 900; revision <= 949; revision += 1) made.event(revision);
  made.live(949);
  return { ...made, asked };
}

test("what is unread past a marker that moved to before what is held is counted anew, with one question", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { room, asked } = partly();
  assert.equal(room.unread, 75, "as the server counted");
  room.seenElsewhere(859);
  room.seenElsewhere(869);
  context.mock.timers.tick(1_000);
  await new Promise(setImmediate);
  assert.equal(room.unread, 50 + 15);
  assert.deepEqual(asked, [[900, 30]]);
  room.seen(889);
  assert.equal(room.unread, 50 + 5, "now it is known");
  room.seen(909);
  assert.equal(room.unread, 40);
  context.mock.timers.tick(10_000);
  assert.equal(asked.length, 1);
  room.unfollow();
});

test("what is unread past a marker far back is counted in the last events, and that is asked for once", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { room, asked } = partly({ seen: 9, unread: 140 });
  for (const revision of [19, 29, 39]) {
    room.seenElsewhere(revision);
    context.mock.timers.tick(1_000);
    await new Promise(setImmediate);
  }
  assert.equal(room.unread, 50 + 100);
  assert.deepEqual(asked, [[900, 200]]);
  room.unfollow();
});

test("what cannot be counted stays as it was, and is asked for no faster for that", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let asked = 0;
  const { room, answer, event, live } = follow({ epoch: EPOCH, after: 899 }, () => {
    asked += 1;
    return Promise.reject(new Error("not now"));
  });
  answer("events", 900, { seen: 849, unread: 75 });
  event(900);
  live(900);
  room.seenElsewhere(859);
  for (let second = 0; second < 60; second += 1) {
    context.mock.timers.tick(1_000);
    await new Promise(setImmediate);
  }
  assert.deepEqual([room.unread, asked], [75, 1]);
  room.unfollow();
});

test("that one writes is told on after the clock was set back", (context) => {
  const { room, sent } = follow();
  let now = 0;
  context.mock.method(performance, "now", () => now);
  const clock = context.mock.method(Date, "now", () => 10_000_000);
  room.write();
  clock.mock.mockImplementation(() => 0);
  now += 3_001;
  room.write();
  room.write();
  assert.equal(sent.filter(({ name }) => name === "typing").length, 2);
});

test("a room that is not there in another history has its old one dropped", () => {
  const { room, told, answer, event, live } = follow();
  answer("events", 5);
  event(5);
  live(5);
  room.lost();
  room.attached({ room: "r", how: "denied", code: "not_found", epoch: EPOCH });
  assert.deepEqual(told, ["reset", "event 5", "live", "denied"], "it is the same history still");
  room.restart();
  answer("events", 5);
  event(5);
  told.length = 0;
  room.lost();
  room.attached({ room: "r", how: "denied", code: "not_found", epoch: OTHER_EPOCH });
  assert.deepEqual(told, ["reset", "denied"]);
  assert.deepEqual([room.state, room.unread, room.head, room.cursor.after], ["denied", 0, null, null]);
});

test("what no server takes is thrown at whoever says it", () => {
  const { room, sent } = follow();
  for (const name of ["cursor-move", "", "Caret", "x".repeat(33), 7, undefined]) assert.throws(() => room.ephemeral(name), { code: "malformed" });
  for (const revision of [1.5, -1, NaN, "7"]) assert.throws(() => room.seen(revision), { code: "malformed" });
  assert.equal(sent.length, 1, "the wish to follow it");
  room.ephemeral("cursor_move", { to: 4 });
  assert.equal(sent.at(-1).name, "cursor_move");
});

test("a room that was left and asked for anew is not left by its first follower again", () => {
  const forgotten = [];
  const room = new Room("r", { user: "alice", isLive: true, send: () => {}, forget: (id) => forgotten.push(id) });
  room.unfollow();
  room.unfollow();
  assert.deepEqual(forgotten, ["r"]);
});

test("who is denied is told why, and of what is not known no more than that", () => {
  for (const [code, words] of [["not_found", /no room/], ["not_a_member", /only members/], ["something_new", /something_new/]]) {
    const { room, answer } = follow();
    const why = [];
    room.on("denied", ({ message }) => why.push(message));
    answer("denied", null, { code });
    assert.match(why.join(), words);
  }
});
