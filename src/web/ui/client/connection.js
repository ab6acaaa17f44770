// One line to the server: which transport, the hello, the heartbeat, coming back.
//
// It knows which rooms are followed and how far, from the messages that pass, so that each
// hello resumes all of them in one round trip. It holds no events and gives no promises.

import { addressOf } from "./address.js";
import { Backoff } from "./backoff.js";
import { Cursor } from "./cursor.js";
import { randomId } from "./ids.js";

const HEARTBEAT_DEFAULT_MS = 25_000;
/** A handshake that takes longer is given up: some proxies swallow it. */
const READY_WITHIN_MS = 8_000;
const WATCH_EVERY_MS = 2_500;
/** How long a fallback is used before the first choice is tried beside it; twice as long after each change that failed. */
const UPGRADE_AFTER_MS = 60_000;
const UPGRADE_AFTER_MAX_MS = 1_800_000;
/** A line that is cut sooner after its greeting has failed as one that had none: something on the way lets none stand. */
const STANDS_AFTER_MS = 5_000;
/** So long after its ack an own command's event has come over a stream, if anything does. */
const EVENT_WITHIN_MS = 5_000;
/** Failures of a transport, while the server can be reached, before the next one is tried. */
const FAILURES_MAX = 2;
/** Between two askings for a token: its source may give again what the server has just refused. */
const RENEW_EVERY_MS = 1_000;
/** What a message may be long until the server has said so, in bytes. */
const MESSAGE_BYTES_MAX = 65_536;
const LOST_CLOSE = 1006;
const SILENT_CLOSE = 4002;
/** Below are codes that a proxy or the network ends a line with, from here on those of a server. */
const SERVER_CLOSE_MIN = 4000;
const MALFORMED_CLOSE = 4500;
const TOKEN_CLOSE = 4501;
/** No hello came in time: a page that was frozen meanwhile, say, and nothing was refused. */
const NO_HELLO_CLOSE = 4506;
const REPLACED_CLOSE = 4507;

/**
 * What is known of the line, as `status` tells it.
 * @typedef {object} Status
 * @property {"connecting"|"live"|"waiting"|"closed"} state
 * @property {string} [transport] what it runs over: `socket`, `stream` or `poll`
 * @property {number} [retryAt] while waiting: when the next attempt is due, Unix milliseconds
 * @property {number} [code] the close code, when closed for good
 * @property {string} [reason]
 * @property {"alone"|"leader"|"follower"} [role] whether this tab holds the line for others
 */

export class Connection {
  #backoff = new Backoff();
  #rooms = new Map(); // room -> Cursor
  #asked = new Map(); // id of a subscribe on its way -> its room
  #line = null;
  #attempt = 0; // tells calls of an abandoned line from those of this one
  #isReady = false;
  #isStopped = false;
  #shown; // the token that the server last took or refused
  #offered; // the token of the last `authenticate`
  #isAsked = false; // for another token, and no line has stood since
  #wantsToken = false; // the server asks for a fresh one and has none yet
  #isRenewing = false;
  #hasNoToken = false; // this line, for its hello
  #transport = 0;
  #failures = 0;
  #hasStood = false; // the present line, or the last one, for a while
  #pushedCount = 0; // messages that no post of this client's was answered with
  #upgradeAfterMs = UPGRADE_AFTER_MS;
  #timers = {};
  #heardAt = null; // by two clocks: the one stands still while a machine sleeps, the other may be set back
  #heartbeatMs = HEARTBEAT_DEFAULT_MS;
  #messageBytesMax = MESSAGE_BYTES_MAX;

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} [options.user] in local mode: who this is
   * @param {string} options.session
   * @param {string} [options.device]
   * @param {(again: boolean) => Promise<string|undefined>} options.token `again` when the last one was
   *   refused; if it fails it is asked again
   * @param {{name: string, open: Function, isThere?: Function, mayBeHeld?: boolean}[]} options.transports in order
   *   of preference; `mayBeHeld`: something on the way may keep back what comes over it
   * @param {typeof fetch} options.fetch
   * @param {{status(status: Status): void, message(message: object): void}} on
   */
  constructor(options, on) {
    this.options = options;
    this.on = on;
    this.session = options.session;
    /** @type {Status} */
    this.status = { state: "connecting" };
    /** The last `ready`, while the line stands. */
    this.ready = null;
  }

  start() {
    this.#timers.watch = setInterval(() => this.#watch(), WATCH_EVERY_MS);
    this.#open();
  }

  stop() {
    this.#isStopped = true;
    clearInterval(this.#timers.watch);
    this.#abandon((line) => (line.leave ? line.leave() : line.close()));
    this.#say({ state: "closed", code: 1000, reason: "stopped" });
  }

  /** Has out what would be lost with the page, should it go now. */
  tellLast() {
    this.#line?.tellLast?.();
  }

  /** Tries now instead of when the wait is over; also after the server closed for good. */
  wake() {
    if (this.#isStopped || this.#line) return;
    // Another window took this session over: come back as one of one's own.
    if (this.status.code === REPLACED_CLOSE) this.session = randomId();
    this.#open();
  }

  /** Opens a new line although one seems to stand: after a change of network it may be dead. */
  renew() {
    if (this.#isStopped) return;
    this.#abandon();
    this.#open();
  }

  /** Sends if the line stands. Whoever needs an answer sends again after the next `ready`. */
  send(message) {
    if (message.type === "subscribe") this.#rooms.set(message.room, new Cursor(message));
    if (message.type === "unsubscribe") this.#rooms.delete(message.room);
    if (!this.#isReady) return;
    if (message.type === "subscribe") this.#asked.set(message.id, message.room);
    this.#line.send(message);
  }

  #say(status) {
    this.status = status;
    this.on.status(status);
  }

  async #hello() {
    const { user, device } = this.options;
    this.#hasNoToken = true;
    const token = await this.#shownToken();
    this.#hasNoToken = false;
    const hello = { type: "hello", ...(token ? { token } : { user }), session: this.session, ...(device && { device }), rooms: [] };
    // What does not fit into one message is subscribed by its followers, once they see it missing in `ready`.
    let left = this.#messageBytesMax - bytesOf(hello);
    for (const [room, cursor] of this.#rooms) {
      const entry = { room, ...cursor.fields() };
      left -= bytesOf(entry) + 1;
      if (left < 0) break;
      hello.rooms.push(entry);
    }
    return hello;
  }

  // A source that fails has not refused anything: it is told, and asked again like a lost line.
  async #token(again) {
    try {
      return await this.options.token(again);
    } catch (error) {
      this.on.problem?.(error);
      throw new Error(`no token could be had: ${error?.message ?? error}`, { cause: error });
    }
  }

  async #shownToken() {
    this.#shown = await this.#token(false);
    return this.#shown;
  }

  #open() {
    clearTimeout(this.#timers.retry);
    this.#attempt += 1;
    this.#hasNoToken = false;
    this.#hasStood = false;
    const attempt = this.#attempt;
    const transport = this.#choice;
    this.#say({ state: "connecting", transport: transport.name });
    this.#heard();
    const isThis = () => attempt === this.#attempt;
    this.#timers.ready = setTimeout(() => isThis() && this.#lost(SILENT_CLOSE, "no answer to the hello in time"), READY_WITHIN_MS);
    this.#line = transport.open({
      url: this.options.url,
      hello: () => this.#hello(),
      token: () => this.#shownToken(),
      heard: () => this.#heard(),
      message: (message) => isThis() && this.#receive(message),
      closed: ({ code, reason }) => isThis() && this.#lost(code, reason),
    });
  }

  // Leaves the present line without a word to anyone.
  #abandon(end = (line) => line.close()) {
    this.#attempt += 1;
    clearTimeout(this.#timers.ready);
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.upgrade);
    clearTimeout(this.#timers.stands);
    clearTimeout(this.#timers.event);
    this.#timers.event = null;
    const line = this.#line;
    const wasReady = this.#isReady;
    this.#line = null;
    this.#isReady = false;
    this.ready = null;
    this.#asked.clear();
    if (line) end(line);
    return wasReady;
  }

  async #lost(code, reason) {
    const wasReady = this.#abandon();
    if (this.#isStopped) return;
    if (code === TOKEN_CLOSE && await this.#hasAnother(wasReady, reason)) return;
    if (this.#isStopped || this.#line) return;
    // A line that stood has said too much that the server could not read. That was refused and is not said
    // again: what waits behind it goes over another line. A hello that is none would be none the next time too.
    const isRefused = code >= 4500 && code <= 4999 && code !== NO_HELLO_CLOSE && !(code === MALFORMED_CLOSE && wasReady);
    if (isRefused) {
      this.#say({ state: "closed", code, reason: reason || `closed by the server (${code})` });
      return;
    }
    this.#wait(this.#backoff.next(), code, reason);
    // A server's own word has come over the transport: so it is not blocked.
    const isCut = code < SERVER_CLOSE_MIN || code === SILENT_CLOSE;
    const isHeld = wasReady && code === SILENT_CLOSE && this.#choice.mayBeHeld;
    if (this.#hasNoToken) return;
    if (isHeld || (isCut && !this.#hasStood)) this.#considerFallback(this.#attempt, isHeld);
  }

  get #choice() {
    return this.options.transports[this.#transport];
  }

  // The token was refused: whether its source has another, which is tried then. One that was taken for
  // a while may be replaced at once; else it is refused for what it is, and its source asked no faster
  // than a lost line comes back. The same one again is all that there is.
  async #hasAnother(wasReady, reason) {
    const refused = this.#shown;
    this.#say({ state: "connecting", transport: this.#choice.name });
    let token;
    try {
      token = await this.#token(true);
    } catch (error) {
      if (!this.#isStopped && !this.#line) this.#wait(this.#backoff.next(), LOST_CLOSE, error.message);
      return true;
    }
    if (token === undefined || token === refused) return false;
    if (this.#isStopped || this.#line) return true;
    if (wasReady || !this.#isAsked) this.#open();
    else this.#wait(this.#backoff.next(), TOKEN_CLOSE, reason);
    this.#isAsked = true;
    return true;
  }

  // A transport that fails although the server can be reached is blocked on the way, and one that nothing comes
  // over is held there.
  async #considerFallback(attempt, isHeld) {
    if (this.options.transports.length < 2 || !(await this.#isReachable()) || attempt !== this.#attempt) return;
    this.#failures += 1;
    if (this.#failures < FAILURES_MAX && !isHeld) return;
    this.#failures = 0;
    this.#transport = (this.#transport + 1) % this.options.transports.length;
    if (this.#transport !== 0) this.wake();
  }

  async #isReachable() {
    try {
      const answer = await this.options.fetch(addressOf(this.options.url, "/api/health"), { signal: AbortSignal.timeout(READY_WITHIN_MS), cache: "no-store" });
      return answer.ok;
    } catch {
      return false;
    }
  }

  #wait(delayMs, code, reason) {
    this.#timers.retry = setTimeout(() => this.#open(), delayMs);
    this.#say({ state: "waiting", retryAt: Date.now() + delayMs, code, reason });
  }

  #receive(message) {
    switch (message.type) {
      case "ping": this.#line.send({ type: "pong" }); return;
      case "ready": this.#greeted(message); return;
      case "drain": this.#backoff.drain(message); break;
      case "authenticate": this.#authenticate(); break;
      case "subscribed": this.#attached(message); break;
      case "event": this.#rooms.get(message.room)?.take(message.revision); break;
      case "room_state": Object.assign(this.#rooms.get(message.room) ?? {}, { last: message.revision }); break;
      case "closed": this.#rooms.delete(message.room); break;
      case "authenticated":
        this.#wantsToken = false;
        this.#shown = this.#offered;
        break;
      case "reject": this.#refused(message); break;
      case "ack": this.#expectEvent(message); break;
      default: // a newer server may say more
    }
    if (message.type !== "ack" && message.type !== "reject") this.#pushedCount += 1;
    this.on.message(message);
  }

  // The event of an own command follows its ack. Where nothing comes at all the line is held back, and the next
  // transport is no worse.
  #expectEvent({ room, revision }) {
    const last = this.#rooms.get(room)?.last ?? null;
    const hasNext = this.#transport + 1 < this.options.transports.length;
    if (!this.#choice.mayBeHeld || !hasNext || this.#timers.event || last === null || !(revision > last)) return;
    const pushed = this.#pushedCount;
    this.#timers.event = setTimeout(() => {
      this.#timers.event = null;
      if (pushed !== this.#pushedCount) return;
      this.#abandon();
      this.#transport += 1;
      this.#open();
    }, EVENT_WITHIN_MS);
  }

  // Only a line that stands for a while shows that its transport is good.
  #stands() {
    this.#hasStood = true;
    this.#failures = 0;
    this.#backoff.succeeded();
    if (this.#transport === 0) this.#upgradeAfterMs = UPGRADE_AFTER_MS;
  }

  #greeted(message) {
    clearTimeout(this.#timers.ready);
    this.#isReady = true;
    this.#timers.stands = setTimeout(() => this.#stands(), STANDS_AFTER_MS);
    this.#isAsked = false;
    this.#wantsToken = false;
    this.#backoff.greeted(message.reconnect);
    this.#heartbeatMs = message.heartbeat_ms ?? HEARTBEAT_DEFAULT_MS;
    this.ready = message;
    this.#messageBytesMax = message.limits?.message_bytes_max ?? MESSAGE_BYTES_MAX;
    for (const entry of message.rooms ?? []) {
      // Left after the hello had asked for it.
      if (!this.#rooms.has(entry.room) && entry.how !== "denied") this.#line.send({ type: "unsubscribe", id: randomId(), room: entry.room });
      this.#attached(entry);
    }
    if (this.#transport > 0) this.#upgradeLater();
    this.#say({ state: "live", transport: this.#choice.name });
    this.on.message(message);
  }

  #refused({ id, code, retry }) {
    if (code === "token_expired") this.#authenticate();
    const room = this.#asked.get(id);
    this.#asked.delete(id);
    // The next hello asks for no room that was refused: of one that it cannot read the server says no to all of it.
    if (room !== undefined && !retry && code !== "token_expired") this.#rooms.delete(room);
  }

  #attached({ id, room, epoch, how }) {
    this.#asked.delete(id);
    const cursor = this.#rooms.get(room);
    if (!cursor) return;
    if (how === "denied") this.#rooms.delete(room);
    if (how === "reset") cursor.clear();
    cursor.epoch = epoch;
  }

  // One renewal at a time, however many messages the server refuses meanwhile.
  async #authenticate() {
    this.#wantsToken = true;
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    while (this.#wantsToken && !this.#isStopped) {
      this.#wantsToken = false;
      try {
        const token = await this.#token(true);
        this.#offered = token;
        if (token) this.send({ type: "authenticate", id: randomId(), token });
      } catch {
        this.#wantsToken = this.#isReady;
      }
      await new Promise((resolve) => { setTimeout(resolve, RENEW_EVERY_MS); });
    }
    this.#isRenewing = false;
  }

  #upgradeLater() {
    this.#timers.upgrade = setTimeout(() => this.#upgrade(), this.#upgradeAfterMs);
  }

  // On a fallback: changes over once the first choice answers, and not before.
  async #upgrade() {
    const attempt = this.#attempt;
    const isThere = await this.options.transports[0].isThere?.(this.options.url);
    if (attempt !== this.#attempt) return;
    if (!isThere) {
      this.#upgradeLater();
      return;
    }
    this.#upgradeAfterMs = Math.min(UPGRADE_AFTER_MAX_MS, 2 * this.#upgradeAfterMs);
    this.#transport = 0;
    this.renew();
  }

  #heard() {
    this.#heardAt = { date: Date.now(), time: performance.now() };
  }

  #watch() {
    const silentMs = Math.max(Date.now() - this.#heardAt.date, performance.now() - this.#heardAt.time);
    if (this.#isReady && silentMs > 2 * this.#heartbeatMs + 5_000) this.#lost(SILENT_CLOSE, "nothing was heard for too long");
  }
}

const bytesOf = (message) => new TextEncoder().encode(JSON.stringify(message)).length;
