// When to come back: exponential backoff with full jitter, or the slot a draining server gave.

const DEFAULT = { base_ms: 500, cap_ms: 30_000 };
const DOUBLINGS_MAX = 20;

export class Backoff {
  #step = DEFAULT;
  #attempts = 0;
  #slot = null;

  /** @param {{random?: () => number, now?: () => number}} [chance] `random` is uniform in [0, 1) */
  constructor({ random = Math.random, now = Date.now } = {}) {
    Object.assign(this, { random, now });
  }

  /** A connection was greeted; `reconnect` is what `ready` says. */
  greeted(reconnect) {
    this.#slot = null;
    this.#step = { ...DEFAULT, ...reconnect };
  }

  /** It has stood for a while: the next failure is a first one. */
  succeeded() {
    this.#attempts = 0;
  }

  /** The server goes away `in_ms` from now, and takes this client back `slot_ms` after that. */
  drain({ in_ms = 0, slot_ms = 0 }) {
    this.#slot = this.now() + in_ms + slot_ms;
  }

  /** Milliseconds to wait before the next attempt. */
  next() {
    const slot = this.#slot;
    this.#slot = null;
    if (slot !== null) return Math.max(0, slot - this.now());
    const bound = Math.min(this.#step.cap_ms, this.#step.base_ms * 2 ** Math.min(this.#attempts, DOUBLINGS_MAX));
    this.#attempts += 1;
    return this.random() * bound;
  }
}
