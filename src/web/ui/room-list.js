// The server's list of rooms, the liveliest first, as far down as it was asked for.
//
// The first page is asked for again and again. What lies behind it is asked for as far as someone looks, and
// then once more from time to time, a page each time: rooms vanish there too.

export const PAGE_LEN = 100;

export class RoomList {
  #ask;
  #asked = 0; // times that the first page was asked for,
  #answered = 0; // and which of them was the last to be answered
  #first = null; // the first page
  #next; // where the list goes on
  #loading = null; // a page behind the first that is on its way
  #review = null; // what is held, asked for anew from the first page on, as far as that has come

  /** @param {(page: {limit: number, after?: string}) => Promise<{rooms: object[], next?: string}>} ask */
  constructor(ask) {
    this.#ask = ask;
    this.rooms = []; // in the server's order
    this.depth = PAGE_LEN; // places of the server's list that were asked for: not all of them are for everyone to read
    this.hasFailed = undefined; // whether there was no answer when it was asked last
  }

  /** Whether nothing lies behind what is held. */
  get isWhole() {
    return this.hasFailed !== undefined && this.#next === undefined;
  }

  /** Asks for the first page; rejects with what it failed by, and stays as it was then. */
  async refresh() {
    this.#asked += 1;
    const number = this.#asked;
    try {
      const page = await this.#ask({ limit: PAGE_LEN });
      if (number < this.#answered) return; // a later question was answered sooner
      this.#answered = number;
      this.hasFailed = false;
      this.#lead(page);
    } catch (error) {
      if (number > this.#answered) this.hasFailed = true;
      throw error;
    }
  }

  /** Asks for the next rooms, or waits for those that are on their way; false when there are none, or none to be had now. */
  more(limit) {
    if (this.#loading === null && this.#next === undefined) return Promise.resolve(false);
    return this.#alone(() => this.#load(limit));
  }

  /** Asks for one more page of what is held behind the first; false if there is none, or it is not to be had now. */
  review() {
    const isNone = this.depth <= PAGE_LEN || this.#first?.next === undefined;
    return isNone ? Promise.resolve(false) : this.#alone(() => this.#reviewPage());
  }

  #alone(load) {
    this.#loading ??= load().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  #lead(page) {
    this.#first = page;
    if (page.next === undefined || this.depth <= PAGE_LEN) {
      this.rooms = page.rooms;
      this.#next = page.next;
      this.#review = null;
      return;
    }
    this.rooms = joined(page.rooms, this.rooms);
    if (this.#review) this.#review.rooms = joined(page.rooms, this.#review.rooms);
  }

  async #load(limit) {
    this.depth += limit; // from now on what lies behind the first page is kept
    try {
      const { rooms, next } = await this.#ask({ limit, after: this.#next });
      this.rooms = joined(this.rooms, rooms);
      this.#next = next;
      return true;
    } catch {
      this.depth -= limit;
      return false;
    }
  }

  // Once it has come down to where the list was held, it takes its place.
  async #reviewPage() {
    this.#review ??= { rooms: this.#first.rooms, depth: PAGE_LEN, next: this.#first.next };
    const review = this.#review;
    const limit = Math.min(PAGE_LEN, this.depth - review.depth);
    try {
      const { rooms, next } = await this.#ask({ limit, after: review.next });
      review.rooms = joined(review.rooms, rooms);
      review.depth += limit;
      review.next = next;
    } catch {
      return false;
    }
    if (this.#review === review && (review.next === undefined || review.depth >= this.depth)) {
      this.rooms = review.rooms;
      this.#next = review.next;
      this.#review = null;
    }
    return true;
  }
}

function joined(first, then) {
  const known = new Set(first.map(({ room }) => room));
  return [...first, ...then.filter(({ room }) => !known.has(room))];
}
