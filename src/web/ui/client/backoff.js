// When to come back: exponential backoff with full jitter, or the slot a draining server gave.

const DEFAULT = { base_ms: 500, cap_ms: 30_000 };
const DOUBLINGS_MAX = 20;

export class Backoff {
  #step = DEFAULT;
  #attempts = 0;
  #slot = null;

  /** @param {() => number} random uniform in [0, 1) */
  constructor(random = Math.random) {
    this.random = random;
  }

  /** The connection stands; `reconnect` is what `ready` says. */
  succeeded(reconnect) {
    this.#attempts = 0;
    this.#slot = null;
    this.#step = { ...DEFAULT, ...reconnect };
  }

  /** The server goes away and told when each client is to return. */
  drain({ in_ms = 0, slot_ms = 0 }) {
    this.#slot = { in_ms, slot_ms };
  }

  /** Milliseconds to wait before the next attempt. */
  next() {
    const slot = this.#slot;
    this.#slot = null;
    if (slot) return slot.in_ms + this.random() * slot.slot_ms;
    const bound = Math.min(this.#step.cap_ms, this.#step.base_ms * 2 ** Math.min(this.#attempts, DOUBLINGS_MAX));
    this.#attempts += 1;
    return this.random() * bound;
  }
}
