// How many messages each room had when this browser last looked at it: kept for all tabs of a person.
//
// Each tab writes only what it has seen itself, among what the others have written since.

import { recall, remember } from "./dom.js";

/** Rooms that are kept, those looked at last; of any other nothing counts as new before it is listed again. */
export const KEPT_MAX = 1_000;

export class SeenCounts {
  #key;
  #counts; // room -> messages
  #seen = new Set(); // rooms to be kept: looked at,
  #listed = new Set(); // or only listed

  constructor(user) {
    this.#key = `seen-counts:${user}`;
    this.#counts = this.#recalled();
  }

  /** A room is listed; what it has is not new where it is for the first time. */
  listed(room, count) {
    if (this.#counts.has(room)) return;
    this.#counts.set(room, count);
    this.#listed.add(room);
  }

  /** All of a room is seen. */
  seen(room, count) {
    if (this.#counts.get(room) === count) return;
    this.#counts.set(room, count);
    this.#seen.add(room);
  }

  /** Messages of a listed room that came since. */
  since(room, count) {
    return count - this.#counts.get(room);
  }

  /** Writes what has changed, if anything has. */
  keep() {
    if (this.#seen.size === 0 && this.#listed.size === 0) return;
    const kept = this.#recalled();
    for (const room of this.#seen) {
      kept.delete(room);
      kept.set(room, this.#counts.get(room));
    }
    // These come from the top of a list: the first are the liveliest, and none takes the place of one looked at.
    const listed = [...this.#listed].filter((room) => !kept.has(room)).map((room) => [room, this.#counts.get(room)]);
    remember("localStorage", this.#key, JSON.stringify([...listed.reverse(), ...kept].slice(-KEPT_MAX)));
    for (const [room, count] of kept) this.#counts.set(room, count);
    this.#seen.clear();
    this.#listed.clear();
  }

  // The longest not looked at first.
  #recalled() {
    try {
      return new Map(JSON.parse(recall("localStorage", this.#key)));
    } catch {
      return new Map(); // not of this page's making, or of another version of it
    }
  }
}
