// Commands that were not answered yet: kept in storage, sent in order, sent again after every
// interruption under the same id, so that each has one effect however often it travels.
//
// What no longer applies: an entry older than `expireAfterMs` is not sent. Its promise is
// rejected with `Expired`, or, if the page was loaded anew since, `expired` tells of it. It
// stays in the store until it is sent again or discarded: nothing is dropped in silence.

import { Emitter } from "./emitter.js";
import { ClientError, Expired, Rejected } from "./errors.js";

/** Commands that wait at once; more are refused as `queue_full`. */
export const QUEUE_LEN_MAX = 1_000;
/** Three days: by then a conversation has moved on. */
export const EXPIRE_AFTER_MS = 3 * 86_400_000;
const RETRIES_MAX = 10;
const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 30_000;

/**
 * A command on its way.
 * @typedef {object} Entry
 * @property {string} id
 * @property {string} owner the tab that sent it
 * @property {{type: "command", id: string, room: string, name: string, data: object, expected?: number}} frame
 * @property {number} createdAt Unix milliseconds
 * @property {number} [expireAfterMs]
 * @property {boolean} attempted whether it may have reached the server
 * @property {"waiting"|"expired"} state
 */

export class Outbox extends Emitter {
  #entries = new Map(); // id -> { entry, resolve, reject, tries, isStored }
  #isReady = false;
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

  /** Takes over what the store holds of owners for whom `isMine(owner)` is true. */
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
    for (const entry of fresh) this.#entries.set(entry.id, { entry, tries: 0, isStored: true });
    this.#entries = new Map([...this.#entries].sort(([, one], [, other]) => one.entry.createdAt - other.entry.createdAt));
    for (const held of fresh.map(({ id }) => this.#entries.get(id))) this.#expireIfDue(held);
    this.emit("changed");
    this.#flush();
  }

  /** Resolves with the ack; rejects with `Rejected`, `Expired` or `ClientError`. */
  add(frame, { expireAfterMs, isStored = true } = {}) {
    if (this.#entries.size >= QUEUE_LEN_MAX) {
      return Promise.reject(new ClientError("queue_full", `${QUEUE_LEN_MAX} commands wait already: try again when some were answered`));
    }
    const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
    if (bytes > this.messageBytesMax) {
      return Promise.reject(new ClientError("too_big", `the command has ${bytes} bytes, the server takes ${this.messageBytesMax}`));
    }
    const entry = { id: frame.id, owner: this.owner, frame, createdAt: this.now(), attempted: false, state: "waiting" };
    if (expireAfterMs !== undefined) entry.expireAfterMs = expireAfterMs;
    return new Promise((resolve, reject) => {
      const held = { entry, resolve, reject, tries: 0, isStored };
      this.#entries.set(entry.id, held);
      this.#store(held);
      this.emit("changed");
      if (this.#isReady && this.now() >= this.#pausedUntil) this.#transmit(held);
    });
  }

  /** A line stands: all that waits goes out, in order. */
  ready() {
    this.#isReady = true;
    this.#pausedUntil = 0;
    this.#flush();
  }

  /** The line is gone: what was sent and not answered may or may not have arrived. */
  lost() {
    this.#isReady = false;
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Takes an `ack` or `reject`; false when it is for someone else. */
  answered(message) {
    const held = this.#entries.get(message.id);
    if (!held) return false;
    if (message.type === "ack") {
      this.#settle(held, () => held.resolve?.(message), { ack: message });
    } else if (message.retry && held.tries < RETRIES_MAX) {
      this.#again(held, message.after_ms);
    } else {
      this.#settle(held, () => held.reject?.(new Rejected(message)), { refusal: message });
    }
    return true;
  }

  /** Sends an expired entry after all, under its old id: if it had arrived, that stays its one effect. */
  resend(id) {
    const held = this.#entries.get(id);
    if (!held) return;
    Object.assign(held.entry, { createdAt: this.now(), state: "waiting" });
    this.#store(held);
    this.emit("changed");
    if (this.#isReady) this.#transmit(held);
  }

  /** Gives an entry up. If it was sent already it may still have its effect. */
  discard(id) {
    const held = this.#entries.get(id);
    if (held) this.#settle(held, () => held.reject?.(new ClientError("discarded", "the command was discarded")));
  }

  /** Ends: promises are rejected, the store keeps its entries for the next time. */
  close() {
    this.lost();
    for (const { reject } of this.#entries.values()) reject?.(new ClientError("closed", "the client was closed before the answer came"));
    this.#entries.clear();
  }

  #settle(held, tell, answer) {
    this.#entries.delete(held.entry.id);
    if (held.isStored) this.#try(() => this.store.remove(held.entry.id));
    tell();
    this.emit("settled", { entry: held.entry, ...answer });
    this.emit("changed");
  }

  // The server asks to wait: all wait, so that the order stays.
  #again(held, afterMs) {
    held.tries += 1;
    const waitMs = afterMs ?? Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** held.tries) * Math.random();
    this.#pausedUntil = Math.max(this.#pausedUntil, this.now() + waitMs);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#flush(), Math.max(0, this.#pausedUntil - this.now()));
  }

  #flush() {
    if (!this.#isReady || this.now() < this.#pausedUntil) return;
    for (const held of [...this.#entries.values()]) this.#transmit(held);
  }

  #transmit(held) {
    if (held.entry.state === "expired" || this.#expireIfDue(held)) return;
    if (!held.entry.attempted) {
      held.entry.attempted = true;
      this.#store(held);
    }
    this.send(held.entry.frame);
  }

  #expireIfDue(held) {
    const ageMs = this.now() - held.entry.createdAt;
    if (held.entry.state === "expired" || ageMs <= (held.entry.expireAfterMs ?? this.expireAfterMs)) return false;
    held.entry.state = "expired";
    this.#store(held);
    held.reject?.(new Expired(held.entry, ageMs));
    Object.assign(held, { resolve: undefined, reject: undefined });
    this.emit("expired", held.entry);
    this.emit("changed");
    return true;
  }

  #store(held) {
    if (held.isStored) this.#try(() => this.store.put(held.entry));
  }

  // A store that is full or gone costs only what a reload would lose.
  async #try(act) {
    try {
      await act();
    } catch (error) {
      this.emit("storage", error);
    }
  }
}
