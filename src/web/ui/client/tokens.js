// Where a client's tokens come from: the one it was given, or whoever makes one when asked.
//
// The last one is kept, until another is had: it is asked for while the last still holds. However many
// ask for another at once, the source is asked once for all of them; and one that does not answer is
// given up, or a hanging request would be the line's end.

import { subjectOf } from "./account.js";

/** A source that takes longer is asked again. */
export const ANSWER_WITHIN_MS = 10_000;

export class Tokens {
  #source;
  #held; // a promise of the last one; none before the first
  #renewal = null; // a promise of the next one, while the source is asked `again`

  /** @param {undefined|string|((why: {again: boolean}) => string|Promise<string>)} source */
  constructor(source) {
    this.#source = source;
    /** Whose they must be, once that is known from one of them. */
    this.subject = null;
  }

  /** The last one, or a first; `undefined` where none is used. */
  async last() {
    if (typeof this.#source !== "function") return this.#source;
    return this.#held ?? this.#renewal ?? this.#first();
  }

  /** A new one, since the last ran out or was refused; `undefined` where there is but one. */
  async next() {
    if (typeof this.#source !== "function") return undefined;
    this.#renewal ??= this.#another();
    return this.#renewal;
  }

  /** One in place of this, which was refused: another may have been had already. */
  async insteadOf(refused) {
    const last = this.#held === undefined ? refused : await this.#held;
    return last === refused ? this.next() : last;
  }

  #first() {
    const asked = this.#given(false);
    this.#held = asked;
    asked.catch(() => { if (this.#held === asked) this.#held = undefined; });
    return asked;
  }

  #another() {
    const asked = this.#given(true);
    const over = () => { this.#renewal = null; };
    asked.then(() => {
      over();
      this.#held = asked;
    }, over);
    return asked;
  }

  async #given(again) {
    const given = await within(ANSWER_WITHIN_MS, Promise.resolve(this.#source({ again })));
    const subject = this.subject === null ? null : subjectOf(given);
    if (subject !== this.subject) throw new Error(`the token is that of ${subject ?? "nobody"}, this line is ${this.subject}'s: connect anew for another person`);
    return given;
  }
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the source of tokens has not answered in ${ms / 1_000} s`)), ms);
    timer.unref?.(); // where nothing else is to be done Node may end
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
