// Where a reader stands in a room, and what that says about each event that comes.

export class Cursor {
  /** @param {{epoch?: string|null, after?: number|null, catch_up?: "events"|"state"}} from */
  constructor({ epoch = null, after = null, catch_up: catchUp } = {}) {
    this.epoch = epoch;
    /** The last revision handled, or null. */
    this.last = after;
    /** What is wanted in place of a long past; kept over reconnects. */
    this.catchUp = catchUp;
  }

  /** The fields of a `hello` or `subscribe` that resume from here. */
  fields() {
    const place = this.last === null || this.epoch === null ? {} : { epoch: this.epoch, after: this.last };
    return this.catchUp ? { ...place, catch_up: this.catchUp } : place;
  }

  /**
   * Takes an event's revision: `next` when it is to be handled, `known` when it was before,
   * `gap` when something between is missing.
   */
  take(revision) {
    if (this.last !== null && revision <= this.last) return "known";
    if (this.last !== null && revision !== this.last + 1) return "gap";
    this.last = revision;
    return "next";
  }

  /** Starts over, as at the first visit. */
  clear() {
    this.epoch = null;
    this.last = null;
  }
}
