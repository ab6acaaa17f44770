// Whose line it is, where a token has to say so.
//
// Tabs share a line, and commands are kept, under a person's name. Where the application gives
// tokens and no name, that is the token's own `sub`: the server checks it, here it keeps apart what
// people at one browser do. A token that cannot be read names nobody: nothing is shared or kept then.

import { Backoff } from "./backoff.js";

const LOST_CLOSE = 1006;

/** Whose a token is by its own account; null if that cannot be read. */
export function subjectOf(token) {
  try {
    const [, payload] = token.split(".");
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" && sub !== "" ? sub : null;
  } catch {
    return null;
  }
}

/** Stands where the line will, until a token was had: asks again for as long as there is none. */
export class Asking {
  #backoff = new Backoff();
  #isStopped = false;
  #isAsking = false;
  #timer = null;

  /**
   * @param {() => Promise<string|undefined>} token
   * @param {{status(status: object): void, problem(error: Error): void, known(subject: string|null): void}} on
   *   `known` is called once, and this is done then
   */
  constructor(token, on) {
    Object.assign(this, { token, on });
    /** @type {import("./connection.js").Status} */
    this.status = { state: "connecting" };
  }

  start() {
    this.wake();
  }

  stop() {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#say({ state: "closed", code: 1000, reason: "stopped" });
  }

  send() {} // the first `ready` has everything said anew

  tellLast() {} // nothing is on its way

  renew() {
    this.wake();
  }

  async wake() {
    if (this.#isStopped || this.#isAsking) return;
    clearTimeout(this.#timer);
    this.#isAsking = true;
    this.#say({ state: "connecting" });
    try {
      const token = await this.token();
      if (!this.#isStopped) this.on.known(subjectOf(token));
    } catch (error) {
      this.#isAsking = false;
      if (!this.#isStopped) this.#failed(error);
    }
  }

  #failed(error) {
    this.on.problem(error);
    const delayMs = this.#backoff.next();
    this.#timer = setTimeout(() => this.wake(), delayMs);
    this.#say({ state: "waiting", retryAt: Date.now() + delayMs, code: LOST_CLOSE, reason: `no token could be had: ${error?.message ?? error}` });
  }

  #say(status) {
    this.status = status;
    this.on.status(status);
  }
}
