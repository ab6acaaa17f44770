// The HTTP side: lists that the server keeps. With a token they are read with the same rights as the line; in local
// mode, where anyone may say to be anyone, they are open to all.

import { addressOf } from "./address.js";
import { HttpError } from "./errors.js";

const PAGE_LEN = 500;
const UNAUTHORIZED = 401;

export class Api {
  /**
   * @param {{url: string, user?: string, fetch: typeof fetch, tokens: import("./tokens.js").Tokens}} options
   *   `user`: who asks, where no token says so
   */
  constructor({ url, user, fetch, tokens }) {
    Object.assign(this, { url, user, fetch, tokens });
  }

  /** Asks a path of the server, such as `/api/rooms`; resolves with its JSON, rejects with `HttpError`. */
  async request(path, init = {}) {
    const token = await this.tokens.last();
    let answer = await this.#send(path, init, token);
    if (answer.status === UNAUTHORIZED && token !== undefined) {
      // It ran out: no line of this tab's own may have renewed it.
      const another = await this.tokens.insteadOf(token);
      if (another !== undefined && another !== token) answer = await this.#send(path, init, another);
    }
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new HttpError(answer.status, json);
    return json;
  }

  #send(path, { body, ...init }, token) {
    const headers = {
      ...(token ? { authorization: `Bearer ${token}` } : this.user !== undefined && { "dramatis-user": this.user }),
      ...(body !== undefined && { "content-type": "application/json" }),
      ...init.headers,
    };
    return this.fetch(addressOf(this.url, path), { ...init, headers, ...(body !== undefined && { body: JSON.stringify(body) }) });
  }

  /** Who asks, and a page of the rooms that they are in: `{ user, profile, invitations, rooms, next? }`. */
  me({ limit = 100, after } = {}) {
    const query = new URLSearchParams({ limit: String(limit), ...(after && { after }) });
    return this.request(`/api/me?${query}`);
  }

  /**
   * One page of the rooms that this person may follow, the most recently active first: `{ rooms, next? }`. It may hold
   * fewer than asked for, even none, and the list goes on after it as long as there is a `next`.
   */
  rooms({ order = "activity", limit = 100, after } = {}) {
    const query = new URLSearchParams({ order, limit: String(limit), ...(after && { after }) });
    return this.request(`/api/rooms?${query}`);
  }

  /** One room. */
  room(room) {
    return this.request(`/api/rooms/${encodeURIComponent(room)}`);
  }

  /** Everyone in a room, by id. */
  async members(room) {
    const members = [];
    for (let more = true; more;) {
      const query = new URLSearchParams({ limit: String(PAGE_LEN), ...(members.length > 0 && { after: members.at(-1).member }) });
      const page = await this.request(`/api/rooms/${encodeURIComponent(room)}/members?${query}`);
      members.push(...page.members);
      more = page.more && page.members.length > 0;
    }
    return members;
  }

  /** A page of a room's messages as they read now, oldest first: `{ messages, more }`. Of long ones it holds fewer than asked for. */
  timeline(room, { before, limit = 100 } = {}) {
    const query = new URLSearchParams({ limit: String(limit), ...(before !== undefined && { before: String(before) }) });
    return this.request(`/api/rooms/${encodeURIComponent(room)}/timeline?${query}`);
  }

  /** The same of a thread, from its first message on: `{ thread, messages, more }`. */
  thread(room, root, { after, limit = 100, minPosition } = {}) {
    const place = { ...(after !== undefined && { after: String(after) }), ...(minPosition !== undefined && { min_position: minPosition }) };
    const query = new URLSearchParams({ limit: String(limit), ...place });
    return this.request(`/api/rooms/${encodeURIComponent(room)}/threads/${root}?${query}`);
  }
}
