// Who is in a room now, and who is writing: both told and never recorded.

/** A writer tells so at most this often. */
const TELL_EVERY_MS = 3_000;
/** Without word, a writer has stopped. */
const TYPING_FOR_MS = 7_000;

const NOBODY = Object.freeze({ count: 0, members: [], isComplete: false });

export class Presence {
  #timers = new Map(); // member -> timer
  #toldAt = null;

  /** @param {(name: "presence"|"typing") => void} changed */
  constructor(changed) {
    this.changed = changed;
    this.here = NOBODY;
    this.typing = [];
  }

  /** Takes a `presence` message: the full list first, then what changed. */
  take({ full, diff }) {
    if (full) this.here = { count: full.count, members: full.members, isComplete: full.complete };
    if (diff) {
      const left = new Set(diff.left);
      const members = [...this.here.members.filter((member) => !left.has(member)), ...diff.joined];
      this.here = { ...this.here, count: diff.count, members };
      for (const member of left) this.quiet(member);
    }
    this.changed("presence");
  }

  /** Another member writes, or stopped. */
  wrote(member, isActive) {
    clearTimeout(this.#timers.get(member));
    this.#timers.delete(member);
    if (isActive) this.#timers.set(member, setTimeout(() => this.quiet(member), TYPING_FOR_MS));
    this.#retell();
  }

  quiet(member) {
    if (this.#timers.has(member)) this.wrote(member, false);
  }

  /** Whether it is time to tell the others again that this person writes. By a clock that never steps back. */
  mayTell(now = performance.now()) {
    if (this.#toldAt !== null && now - this.#toldAt < TELL_EVERY_MS) return false;
    this.#toldAt = now;
    return true;
  }

  /** This person writes no more; true when the others had been told. */
  silent() {
    const hadTold = this.#toldAt !== null;
    this.#toldAt = null;
    return hadTold;
  }

  /** The line is lost: nothing is known. */
  clear() {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.here = NOBODY;
    this.#toldAt = null;
    this.#retell();
    this.changed("presence");
  }

  #retell() {
    this.typing = [...this.#timers.keys()];
    this.changed("typing");
  }
}
