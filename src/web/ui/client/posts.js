// What a client without a WebSocket says: one request after the other, so that the order stays.

const JSON_TYPE = { "content-type": "application/json" };
/** Pause before a request is sent again that the server could not take, in milliseconds. */
const AGAIN_MS = 1_000;

/** The headers that say who asks, and of which session. */
export async function headersOf(link, hello) {
  const token = await link.token();
  return {
    ...(token ? { authorization: `Bearer ${token}` } : { "dramatis-user": hello.user }),
    "dramatis-session": hello.session,
  };
}

/** The close code that stands for a refused request: a socket would have been closed with it. */
export function closeCodeOf(status) {
  return { 400: 4500, 401: 4501, 403: 4503 }[status] ?? 1006;
}

/** Posts messages of one session; what cannot be posted ends the line by `lost(code, reason)`. */
export class Posts {
  #queue = Promise.resolve();

  constructor({ fetch, link, hello, signal, lost }) {
    Object.assign(this, { fetch, link, hello, signal, lost });
  }

  /** Sends a message after those before it. */
  send(message) {
    this.#queue = this.#queue.then(() => this.#post(message)).catch((error) => {
      if (!this.signal.aborted) this.lost(1006, error.message);
    });
  }

  async #post(message) {
    if (this.signal.aborted) return;
    const isCommand = message.type === "command";
    const answer = await this.fetch(new URL(isCommand ? "/api/commands" : "/api/frames", this.link.url), {
      method: "POST",
      headers: { ...JSON_TYPE, ...await headersOf(this.link, this.hello) },
      body: JSON.stringify(message),
      signal: this.signal,
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
    if (message.id !== undefined) this.link.message(rejectOf(problem, message.id, answer.status));
    return undefined;
  }

  async #again(message, afterMs) {
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    return this.#post(message);
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
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
