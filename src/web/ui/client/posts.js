// What a client without a WebSocket says: one request after the other, so that the order stays.

import { addressOf } from "./address.js";

export const JSON_TYPE = { "content-type": "application/json" };
/** Pause before a request is sent again that the server could not take, in milliseconds. */
const AGAIN_MS = 1_000;
/** A post that is not answered in so many milliseconds ends the line. */
const ANSWER_WITHIN_MS = 30_000;
/** A line that is left waits no longer than this for its last word to be taken, in milliseconds. */
const LAST_WORD_WITHIN_MS = 2_000;

/** The headers that say who asks, and of which session. */
export async function headersOf(link, hello) {
  const token = await link.token();
  return {
    ...(token ? { authorization: `Bearer ${token}` } : { "dramatis-user": hello.user }),
    "dramatis-session": hello.session,
  };
}

// The close code that stands for a refused request: a socket would have been closed with it. Only
// the server's own no is final, which has a word for it: anything on the way may answer 400 or 403 too.
function closeCodeOf(status, { code }) {
  return code === undefined ? 1006 : { 400: 4500, 401: 4501, 403: 4503 }[status] ?? 1006;
}

/**
 * A line whose messages go out as posts; `run({ hello, over, isOver, ask })` reads what comes in.
 * `ask(path, init)` makes a request that ends with the line and fails on a refusal.
 */
export function postedLine({ fetch }, link, run) {
  const ending = new AbortController();
  const { signal } = ending;
  let posts = null;
  const over = (code, reason) => {
    if (signal.aborted) return;
    ending.abort();
    link.closed({ code, reason });
  };
  const ask = async (path, init) => {
    const answer = await fetch(addressOf(link.url, path), { ...init, signal });
    if (answer.ok) return answer;
    const problem = parsed(await answer.text());
    throw Object.assign(new Error(problem.detail ?? `the server answered ${answer.status}`), { code: closeCodeOf(answer.status, problem) });
  };
  const start = async () => {
    const hello = await link.hello();
    posts = new Posts({ fetch, link, hello, signal, lost: over });
    await run({ hello, over, ask, isOver: () => signal.aborted });
  };
  start().catch((error) => over(error.code >= 1000 ? error.code : 1006, error.message));
  return {
    send: (message) => posts?.send(message),
    tellLast: () => posts?.tellLast(),
    close: (code = 1000, reason = "") => over(code, reason),
    // The session goes with the line: it stands until the last word is taken.
    async leave() {
      await posts?.tellLast();
      over(1000, "");
    },
  };
}

/** The request that begins a session. */
export function beginning(hello) {
  return { method: "POST", headers: { ...JSON_TYPE, ...(hello.token && { authorization: `Bearer ${hello.token}` }) }, body: JSON.stringify(hello) };
}

/** Posts messages of one session; what cannot be posted ends the line by `lost(code, reason)`. */
class Posts {
  #queue = Promise.resolve();
  #markers = new Set(); // what of that says how far was read

  constructor({ fetch, link, hello, signal, lost }) {
    Object.assign(this, { fetch, link, hello, signal, lost });
  }

  /** Sends a message after those before it. */
  send(message) {
    if (message.type === "seen") this.#markers.add(message);
    this.#queue = this.#queue.then(() => this.#post(message)).catch((error) => {
      if (!this.signal.aborted) this.lost(1006, error.message);
    }).finally(() => this.#markers.delete(message));
  }

  /**
   * Says at once how far was read, also where the page goes now: nobody says that again. Of all else that waits
   * the next line tells, or it is no matter any more.
   */
  async tellLast() {
    if (this.#markers.size === 0) return;
    const body = [...this.#markers].map((message) => JSON.stringify(message)).join("\n");
    try {
      await this.#send("/api/frames", { body, keepalive: true, signal: AbortSignal.timeout(LAST_WORD_WITHIN_MS) });
    } catch { /* the line is being left: there is no other way */ }
  }

  async #send(path, init) {
    const headers = { ...JSON_TYPE, ...await headersOf(this.link, this.hello) };
    return this.fetch(addressOf(this.link.url, path), { method: "POST", headers, ...init });
  }

  async #post(message) {
    if (this.signal.aborted) return;
    const isCommand = message.type === "command";
    const answer = await this.#send(isCommand ? "/api/commands" : "/api/frames", {
      body: JSON.stringify(message),
      signal: AbortSignal.any([this.signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]),
    });
    this.link.heard();
    const text = await answer.text();
    if (answer.ok) {
      if (isCommand) this.link.message(JSON.parse(text));
      return undefined;
    }
    const problem = parsed(text);
    if (isCommand) return this.link.message(rejectOf(problem, message.id, answer.status));
    // The session is gone: the hello of the next line tells all that this frame would have.
    if (answer.status === 404) return this.lost(1006, problem.detail);
    if (problem.retry) return this.#again(message, problem.after_ms ?? AGAIN_MS);
    return this.link.message(rejectOf(problem, message.id, answer.status));
  }

  async #again(message, afterMs) {
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    return this.#post(message);
  }
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {}; // a proxy's own page
  }
}

// The problem document of an answer as the `reject` that a socket would have carried.
function rejectOf({ code, title, detail, retry, after_ms }, id, status) {
  return {
    type: "reject", id, code: code ?? "unavailable", message: code === "rule" ? title : detail ?? `the server answered ${status}`,
    detail, retry: retry ?? code === undefined, after_ms,
  };
}
