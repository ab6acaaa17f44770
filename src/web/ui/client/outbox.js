// Commands that were not answered yet: kept in storage, sent in order, sent again after every
// interruption under the same id, so that each has one effect however often it travels.
//
// What no longer applies: an entry older than `expireAfterMs` is not sent. Its promise is
// rejected with `Expired`, or, if the page was loaded anew since, `expired` tells of it. It
// stays in the store until it is sent again or discarded: nothing is dropped in silence. The same
// for one that names a message by its revision, where the server has another history since (of a
// backup, or cut by a repair): there that revision is another message, or none.

import { commandObjection } from "./content.js";
import { Emitter } from "./emitter.js";
import { ClientError, Expired, Rejected } from "./errors.js";
import { idObjection } from "./ids.js";

/** Commands that wait at once; more are refused as `queue_full`. */
export const QUEUE_LEN_MAX = 1_000;
/** Three days: by then a conversation has moved on. */
export const EXPIRE_AFTER_MS = 3 * 86_400_000;
/** Commands on their way at once: when a line stands, and at the most. */
const WINDOW_FIRST = 32;
export const WINDOW_MAX = 256;
/**
 * After a refusal as too fast one goes at a time, until so long has passed without another, and no less
 * than a first window would have taken at the pace of then.
 */
const CALM_AFTER_MS = 10_000;
/** Answers "again" that named no time, before it is given up. */
const RETRIES_MAX = 10;
/** After a refusal as too fast each waits so much longer behind the one before, and so much less after each ack. */
const PACE_SLOWED = 1.25;
const PACE_EASED = 0.98;
const PACE_MAX_MS = 5_000;
const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 30_000;
/** In place of an epoch that no one tells. */
const ANY_EPOCH = "";

/**
 * A command on its way.
 * @typedef {object} Entry
 * @property {string} id
 * @property {string} owner the tab that sent it
 * @property {{type: "command", id: string, room: string, name: string, data: object, expected?: number}} frame
 * @property {number} createdAt Unix milliseconds
 * @property {number} [sequence] rises with each that one tab sent: their order within a millisecond
 * @property {number} [expireAfterMs]
 * @property {string} [epoch] of the history that it was written in, where that was known
 * @property {"age"|"history"} [expiredBy] why it expired
 * @property {boolean} attempted whether it may have reached the server
 * @property {"waiting"|"expired"} state
 */

/** Orders entries as they were written. */
export const byAge = (one, other) => one.createdAt - other.createdAt || (one.sequence ?? 0) - (other.sequence ?? 0);

export class Outbox extends Emitter {
  #entries = new Map(); // id -> { entry, resolve, reject, tries, isStored, isKept, isOnItsWay, number }
  #isReady = false;
  #epoch = null; // of the server's history, once this line has told it
  #check = null; // under way: which of what was taken over is in the store still
  #onTheirWay = 0;
  #window = WINDOW_FIRST;
  #isFull = false; // as many as the window holds are on their way: the next go once all are answered
  #wasRefused = false; // one of those
  #sequence = 0;
  #sentCount = 0;
  #slowedAt = 0; // how many were sent when the pace was last set
  #calmAt = 0; // when it counts no more that one was refused as too fast
  #paceMs = 0; // from one to the next, where the server is asked too fast else
  #pausedUntil = 0;
  #timer = null;

  /**
   * Emits `changed`, `settled` (`{ entry, ack | refusal }`), `expired` (an entry), `storage` (an
   * error of the store).
   * @param {object} parts
   * @param {{list(): any, put(entry: Entry): any, remove(id: string): any}} parts.store
   * @param {string} parts.owner
   * @param {(frame: object) => void} parts.send
   * @param {number} [parts.expireAfterMs]
   * @param {() => number} [parts.now]
   */
  constructor({ store, owner, send, expireAfterMs = EXPIRE_AFTER_MS, now = Date.now }) {
    super();
    Object.assign(this, { store, owner, send, expireAfterMs, now });
    this.messageBytesMax = Infinity;
  }

  /** All that waits, oldest first. */
  get entries() {
    return [...this.#entries.values()].map(({ entry }) => entry);
  }

  /** Whether an entry outlives the page: the store has taken it, and does so itself. */
  isKept(id) {
    return this.#entries.get(id)?.isKept === true;
  }

  /** From now on what waits belongs to this tab. */
  belongsTo(owner) {
    if (owner === this.owner) return;
    this.owner = owner;
    for (const held of this.#entries.values()) {
      held.entry.owner = owner;
      this.#store(held);
    }
  }

  /** From now on what waits is kept in this store. */
  keepIn(store) {
    this.store = store;
    for (const held of this.#entries.values()) {
      held.isKept = false;
      this.#store(held);
    }
  }

  /** Takes over what the store holds of owners for whom `isMine(owner)` is true: from then on it is this tab's there, too. */
  async adopt(isMine) {
    let found;
    try {
      found = await this.store.list();
    } catch (error) {
      this.emit("storage", error);
      return;
    }
    const fresh = found.filter((entry) => !this.#entries.has(entry.id) && isMine(entry.owner));
    if (fresh.length === 0) return;
    for (const entry of fresh) {
      const held = { entry, tries: 0, isStored: true, isKept: true, isAdopted: true };
      this.#entries.set(entry.id, held);
      this.#sequence = Math.max(this.#sequence, entry.sequence ?? 0);
      if (entry.owner === this.owner) continue;
      entry.owner = this.owner;
      this.#store(held);
    }
    this.#entries = new Map([...this.#entries].sort(([, one], [, other]) => byAge(one.entry, other.entry)));
    for (const held of fresh.map(({ id }) => this.#entries.get(id))) {
      if (held.entry.state === "expired") this.emit("expired", held.entry);
      else this.#expireIfDue(held);
    }
    this.emit("changed");
    this.#flush();
  }

  /** Resolves with the ack; rejects with `Rejected`, `Expired` or `ClientError`. */
  add(given, { expireAfterMs, epoch, isStored = true } = {}) {
    let frame;
    try {
      frame = JSON.parse(JSON.stringify(given)); // as it is now, whatever its maker does with it later
    } catch (error) {
      return Promise.reject(new ClientError("malformed", `the command is not to be written as JSON: ${error.message}`));
    }
    const problem = this.#objection(frame);
    if (problem !== null) return Promise.reject(new ClientError(problem.code, problem.message));
    if (this.#entries.has(frame.id)) {
      return Promise.reject(new ClientError("id_in_use", `a command with the id ${frame.id} waits already: give each its own, or wait for its answer`));
    }
    if (this.#entries.size >= QUEUE_LEN_MAX) {
      return Promise.reject(new ClientError("queue_full", `${QUEUE_LEN_MAX} commands wait already: try again when some were answered`));
    }
    const entry = { id: frame.id, owner: this.owner, frame, ...this.#stamp(), attempted: false, state: "waiting" };
    if (expireAfterMs !== undefined) entry.expireAfterMs = expireAfterMs;
    if (epoch) entry.epoch = epoch;
    return new Promise((resolve, reject) => {
      const held = { entry, resolve, reject, tries: 0, isStored };
      this.#entries.set(entry.id, held);
      this.#store(held);
      this.emit("changed");
      this.#flush();
    });
  }

  /**
   * A line stands: all that waits goes out, in order, and no more at once than the window.
   * @param {string|null} [epoch] of the server's history; without it what depends on that waits for `isOf`
   */
  ready(epoch = null) {
    this.lost();
    this.#isReady = true;
    this.#epoch = epoch;
    this.#pausedUntil = 0;
    this.#recheck();
    this.#flush();
  }

  /** The server's history is of this epoch; `null` if that is not to be known. */
  isOf(epoch) {
    if (!this.#isReady) return;
    this.#epoch = epoch ?? ANY_EPOCH;
    this.#flush();
  }

  /** Whether something waits until the epoch of the server's history is known. */
  get awaitsEpoch() {
    return this.#isReady && this.#epoch === null && this.entries.some((entry) => entry.state === "waiting" && dependsOnEpoch(entry));
  }

  /** The line is gone: what was sent and not answered may or may not have arrived. */
  lost() {
    this.#isReady = false;
    clearTimeout(this.#timer);
    this.#timer = null;
    for (const held of this.#entries.values()) this.#arrived(held);
    this.#isFull = false;
  }

  /** Takes an `ack` or `reject`; false when it is for someone else. */
  answered(message) {
    const held = this.#entries.get(message.id);
    if (!held) return false;
    this.#arrived(held);
    if (message.type === "ack") {
      this.#paceMs *= PACE_EASED;
      this.#settle(held, () => held.resolve?.(message), { ack: message });
    } else if (message.retry && (message.after_ms !== undefined || held.tries < RETRIES_MAX)) {
      this.#again(held, message);
    } else {
      this.#settle(held, () => held.reject?.(new Rejected(message)), { refusal: message });
    }
    this.#flush();
    return true;
  }

  /** Sends an expired entry after all, under its old id: if it had arrived, that stays its one effect. */
  resend(id) {
    const held = this.#entries.get(id);
    if (!held) return;
    Object.assign(held.entry, { ...this.#stamp(), state: "waiting" });
    delete held.entry.expiredBy;
    delete held.entry.epoch;
    this.#store(held);
    this.emit("changed");
    this.#flush();
  }

  /** Gives an entry up. If it was sent already it may still have its effect. */
  discard(id) {
    const held = this.#entries.get(id);
    if (!held) return;
    this.#settle(held, () => held.reject?.(new ClientError("discarded", "the command was discarded")));
    this.#flush();
  }

  /** Ends: promises are rejected, the store keeps its entries for the next time. */
  close() {
    this.lost();
    for (const { reject } of this.#entries.values()) reject?.(new ClientError("closed", "the client was closed before the answer came"));
    this.#entries.clear();
  }

  // Behind all that waits, also where the clock was set back.
  #stamp() {
    this.#sequence += 1;
    const createdAt = Math.max(this.now(), ...this.entries.map((entry) => entry.createdAt));
    return { createdAt, sequence: this.#sequence };
  }

  // What was taken over may have been in the hands of another tab still, and given up or answered there since.
  async #recheck() {
    const adopted = [...this.#entries.values()].filter(({ isAdopted }) => isAdopted);
    if (adopted.length === 0) return;
    const check = this.#check = (async () => this.store.list())();
    let found;
    try {
      found = new Set((await check).map(({ id }) => id));
    } catch (error) {
      this.emit("storage", error);
    }
    if (check !== this.#check) return;
    this.#check = null;
    for (const held of adopted) {
      const { id } = held.entry;
      if (found?.has(id) === false && this.#entries.get(id) === held) this.#settle(held, () => {});
    }
    this.#flush();
  }

  #settle(held, tell, answer) {
    this.#arrived(held);
    this.#entries.delete(held.entry.id);
    if (held.isStored) this.#try(() => this.store.remove(held.entry.id));
    tell();
    this.emit("settled", { entry: held.entry, ...answer });
    this.emit("changed");
  }

  #arrived(held) {
    if (held.isOnItsWay) this.#onTheirWay -= 1;
    held.isOnItsWay = false;
  }

  // Once none was refused as too fast for a while it may go faster again.
  #calm() {
    if (this.now() < this.#calmAt) return;
    this.#window = Math.max(this.#window, WINDOW_FIRST);
    this.#paceMs = 0;
  }

  // The server asks to wait: all wait, so that the order stays.
  #again(held, { code, after_ms: afterMs }) {
    if (afterMs === undefined) held.tries += 1;
    const waitMs = afterMs ?? Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** held.tries) * Math.random();
    this.#wasRefused = true;
    if (code === "rate_limited") {
      // Of those that were on their way together the first tells how much too fast that was.
      if (held.number > this.#slowedAt) {
        this.#paceMs = Math.min(PACE_MAX_MS, (this.#paceMs + waitMs) * PACE_SLOWED);
        this.#slowedAt = this.#sentCount;
      }
      // What is sent behind one that is refused may be taken before it: from now on nothing is.
      this.#window = 1;
      this.#calmAt = this.now() + Math.max(CALM_AFTER_MS, WINDOW_FIRST * this.#paceMs);
    }
    this.#pauseUntil(this.now() + waitMs);
  }

  #pauseUntil(time) {
    this.#pausedUntil = Math.max(this.#pausedUntil, time);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#pausedUntil = 0; // the timer may be a moment ahead of the clock
      this.#flush();
    }, Math.max(0, this.#pausedUntil - this.now()));
  }

  // Sends what is not on its way yet, as far as the window and the pace let it. A queue longer than
  // the window goes window by window: the fewer are on their way behind one that is refused.
  #flush() {
    if (this.#onTheirWay === 0) this.#turn();
    if (this.#isFull || this.#check !== null || this.awaitsEpoch) return;
    for (const held of [...this.#entries.values()]) {
      if (!this.#isReady || this.#onTheirWay >= this.#window || this.now() < this.#pausedUntil) return;
      const isDue = this.#entries.get(held.entry.id) === held && !held.isOnItsWay && held.entry.state !== "expired";
      if (isDue && !this.#expireIfDue(held)) this.#transmit(held);
      if (this.#onTheirWay >= this.#window) this.#isFull = true;
    }
  }

  // All that were on their way are answered: more may go at once if none was refused.
  #turn() {
    if (this.#isFull && !this.#wasRefused && this.now() >= this.#calmAt) this.#window = Math.min(WINDOW_MAX, this.#window * 2);
    this.#calm();
    this.#isFull = false;
    this.#wasRefused = false;
  }

  #transmit(held) {
    // Before the first line it was not known how much the server takes.
    const problem = this.#objection(held.entry.frame);
    if (problem !== null) {
      const refusal = { type: "reject", id: held.entry.id, ...problem, retry: false };
      this.#settle(held, () => held.reject?.(new ClientError(problem.code, problem.message)), { refusal });
      return;
    }
    if (!held.entry.attempted) {
      held.entry.attempted = true;
      this.#store(held);
    }
    held.isOnItsWay = true;
    this.#onTheirWay += 1;
    this.#sentCount += 1;
    held.number = this.#sentCount;
    if (this.#paceMs >= 1) this.#pauseUntil(this.now() + this.#paceMs);
    this.send(held.entry.frame);
  }

  // Why the server would not take a frame, as far as that is known here; null if it may.
  #objection(frame) {
    const malformed = idObjection(frame.id) ?? commandObjection(frame);
    if (malformed !== null) return { code: "malformed", message: malformed };
    if (this.messageBytesMax === Infinity) return null;
    const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
    if (bytes <= this.messageBytesMax) return null;
    return { code: "too_big", message: `the command has ${bytes} bytes, the server takes ${this.messageBytesMax}` };
  }

  #expireIfDue(held) {
    const { entry } = held;
    if (entry.state === "expired") return false;
    const ageMs = this.now() - entry.createdAt;
    const isOld = ageMs > (entry.expireAfterMs ?? this.expireAfterMs);
    const isOfAnother = this.#isReady && ![null, ANY_EPOCH, entry.epoch].includes(this.#epoch) && dependsOnEpoch(entry);
    if (!isOld && !isOfAnother) return false;
    Object.assign(entry, { state: "expired", expiredBy: isOfAnother ? "history" : "age" });
    this.#store(held);
    held.reject?.(new Expired(entry, ageMs));
    Object.assign(held, { resolve: undefined, reject: undefined });
    this.emit("expired", entry);
    this.emit("changed");
    return true;
  }

  async #store(held) {
    const { store } = this;
    if (!held.isStored || !await this.#try(() => store.put(held.entry)) || store.isVolatile || held.isKept) return;
    held.isKept = true;
    this.emit("changed");
  }

  // Whether it could be done: a store that is full or gone costs only what a reload would lose.
  async #try(act) {
    try {
      await act();
      return true;
    } catch (error) {
      this.emit("storage", error);
      return false;
    }
  }
}

// Whether it names a message, or the room's own place, by a revision of a history that is known.
function dependsOnEpoch({ epoch, frame: { data, expected } }) {
  return epoch !== undefined && (expected !== undefined || data?.target !== undefined || data?.reply_to !== undefined);
}
