// A person at a server: their line, rooms, and commands on the way.

import { Asking, subjectOf } from "./account.js";
import { Api } from "./api.js";
import { Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { ClientError, Rejected } from "./errors.js";
import { objection, randomId } from "./ids.js";
import { Outbox } from "./outbox.js";
import { Relay, canShare } from "./relay.js";
import { Room } from "./room.js";
import { defaultStore, memoryStore } from "./store.js";
import { live, sessionId, tabId, tabLock } from "./tab.js";
import { Tokens } from "./tokens.js";
import { transportsOf } from "./transports.js";

/** The word for one's own stream where else a room is named. */
const ME = "me";
/** Requests that wait for an answer at once. */
const REQUESTS_MAX = 100;
/** Once they are acked their author may read the room. */
const ENTERING = ["open_room", "join"];
const CLOSED = "the client was closed";
const REPLACED_CLOSE = 4507;
/** A tab that is gone for longer is not on its way through a reload: what it left is another's to send then. */
const RELOADED_WITHIN_MS = 5_000;
/** How long a fresh token may take before what was refused without it is sent again, in milliseconds. */
const TOKEN_WITHIN_MS = 1_000;

/**
 * Emits
 * - `status`: how the line stands, see `status`
 * - `ready`: the server's greeting, after each reconnect
 * - `pending`: `pending` changed
 * - `settled`: `{ entry, ack }` or `{ entry, refusal }`, a command was answered, also one of before a
 *   reload; neither when it was discarded
 * - `expired`: a command that waited too long, see `resend` and `discard`
 * - `problem`: an error that nobody waits for, of the store or of the token's source
 */
export class Client extends Emitter {
  #options;
  #line;
  #outbox;
  #rooms = new Map();
  #requests = new Map(); // id -> { frame, resolve, reject }
  #tokens;
  #epoch = null; // of the server's history, as far as this client was told
  #epochAsked = null; // the id of a subscribe that is to tell it and follows nothing
  #space = null; // what is this person's at this server, in this browser
  #isShared;
  #isRenewing = false; // what is said meanwhile may be refused
  #hasMoved = false; // to another session, because its own went on in a copy of this tab

  /** Made by `connect`. */
  constructor(options) {
    super();
    this.#options = options;
    this.user = options.user ?? options.account ?? null;
    /** Greeting of the server, while the line stands. */
    this.greeting = null;
    this.#isShared = options.share && canShare();
    this.tab = tabId();
    this.ended = new AbortController();
    this.#tokens = new Tokens(options.token);
    this.api = new Api({ url: options.url, user: options.user, fetch: options.fetch, tokens: this.#tokens });
    this.#outbox = new Outbox({
      store: options.store ?? memoryStore(),
      owner: this.tab,
      expireAfterMs: options.expireAfterMs,
      send: (frame) => this.#line.send(frame),
    });
    this.#outbox.on("settled", ({ entry: { frame }, ack }) => ack && ENTERING.includes(frame.name) && this.#rooms.get(frame.room)?.entered());
    this.#outbox.on("changed", () => {
      this.#askEpoch();
      this.emit("pending", this.pending);
    });
    for (const name of ["settled", "expired"]) this.#outbox.on(name, (value) => this.emit(name, value));
    this.#outbox.on("storage", (error) => this.emit("problem", error));
    this.#whose();
    this.#watchNetwork();
  }

  // A person's name decides what is shared and kept: without one the token says whose it is.
  #whose() {
    const { token, store } = this.#options;
    if (this.user !== null) return this.#begin(this.user);
    if (typeof token === "string") return this.#begin(subjectOf(token));
    if (!token || (!this.#isShared && store)) return this.#begin(null);
    this.#line = new Asking(() => this.#tokens.last(), {
      status: (status) => this.#stands(status),
      problem: (error) => this.emit("problem", error),
      known: (subject) => {
        this.#tokens.subject = subject;
        this.#begin(subject);
      },
    });
    return this.#line.start();
  }

  #begin(name) {
    const options = this.#options;
    const { host, pathname } = new URL(options.url);
    const space = `dramatis:${host}${pathname.replace(/\/+$/, "")}:${name ?? "?"}`;
    this.#space = space;
    if (name === null) this.#isShared = false;
    else if (!options.store) this.#outbox.keepIn(defaultStore(`${space}:outbox`));
    const line = {
      url: options.url,
      user: options.user,
      device: options.device,
      token: (again) => (again ? this.#tokens.next() : this.#tokens.last()),
      transports: transportsOf(options),
      fetch: options.fetch,
      space,
      tab: this.tab,
    };
    const on = {
      status: (status) => this.#stands(status),
      message: (message) => this.#take(message),
      problem: (error) => this.emit("problem", error),
      named: (tab) => this.#isTab(tab),
      gone: () => this.#adoptOrphans(),
      refused: () => this.#goAlone(line, on),
    };
    if (!this.#isShared) return this.#goAlone(line, on);
    this.tab = null;
    this.#line = new Relay({ ...line, session: this.#session(space) }, on);
    return this.#line.start();
  }

  // A line of this tab's own.
  #goAlone(line, on) {
    this.#isShared = false;
    this.#line = new Connection({ ...line, session: this.#session(line.space) }, on);
    this.#line.start();
    this.#isTab(this.tab ?? line.tab);
  }

  #session(space) {
    return this.#options.session ?? sessionId(space, this.#isShared);
  }

  /** How the line stands. @returns {import("./connection.js").Status} */
  get status() {
    return { role: "alone", ...this.#line.status };
  }

  /** Commands that were not answered yet, oldest first. @returns {import("./outbox.js").Entry[]} */
  get pending() {
    return this.#outbox.entries;
  }

  /** Whether a command that waits outlives the page: its store has taken it. */
  isKept(id) {
    return this.#outbox.isKept(id);
  }

  /**
   * Follows a room; the same room again gives the same object. One whose name or place no server takes is `denied`.
   * @param {string} id
   * @param {{epoch?: string, after?: number, catchUp?: "events"|"state"}} [from] where to go on; without it, from the latest page
   */
  room(id, from) {
    const held = this.#rooms.get(id);
    if (held) return held;
    const problem = objection(id, from);
    const room = new Room(id, problem === null ? this.#link() : this.#noLink(), problem === null ? from : {});
    this.#rooms.set(id, room);
    if (problem === null) room.subscribe();
    else queueMicrotask(() => room.state === "joining" && room.deny({ code: "malformed", message: problem }));
    return room;
  }

  /** One's own stream, followed like a room: profile, invitations, read markers, new sessions. */
  get me() {
    return this.room(ME);
  }

  /** The rooms that are followed. */
  get rooms() {
    return [...this.#rooms.values()].filter(({ id }) => id !== ME);
  }

  /**
   * Asks for something to be done in a room; resolves with the ack once it is durable, rejects
   * with `Rejected` (the server's no), `Expired`, or `ClientError`.
   * @param {string} room
   * @param {string} name such as `post_message`
   * @param {object} [data]
   * @param {{id?: string, expected?: number, expireAfterMs?: number, isStored?: boolean}} [options]
   *   `id`: the idempotency key; `expected`: the revision the room must stand at;
   *   `isStored: false`: a reload may forget it
   */
  command(room, name, data = {}, { id = randomId(), expected, ...keep } = {}) {
    if (this.ended.signal.aborted) return Promise.reject(new ClientError("closed", CLOSED));
    const problem = objection(room);
    if (problem !== null) return Promise.reject(new ClientError("malformed", problem));
    const frame = { type: "command", id, room, name, data, ...(expected !== undefined && { expected }) };
    return this.#outbox.add(frame, { ...keep, epoch: this.#rooms.get(room)?.cursor.epoch ?? this.#epoch });
  }

  /** Sends an expired command after all. */
  resend(id) {
    this.#outbox.resend(id);
  }

  /** Gives a command up; if it was sent it may still have its effect. */
  discard(id) {
    this.#outbox.discard(id);
  }

  /** Connects now instead of when the wait is over, or again after the server closed for good. */
  wake() {
    this.#line.wake();
  }

  /** Ends the line. What was not answered stays stored and is sent at the next `connect`. */
  close() {
    this.#tellSeen();
    this.ended.abort();
    for (const room of this.#rooms.values()) room.lost();
    this.#line.stop();
    this.#outbox.close();
    for (const { reject } of this.#requests.values()) reject(new ClientError("closed", CLOSED));
    this.#requests.clear();
  }

  #tellSeen() {
    for (const room of this.#rooms.values()) room.tellSeen();
  }

  // What a room says goes through this.
  #link() {
    const client = this;
    return {
      get user() { return client.user; },
      get isLive() { return client.greeting !== null; },
      get isRenewing() { return client.#isRenewing; },
      ephemeralBytesMax: client.#options.ephemeralBytesMax,
      send: (message) => client.#line.send(message),
      command: (...parts) => client.command(...parts),
      request: (frame) => client.#request(frame),
      forget: (room) => {
        client.#rooms.delete(room);
        client.#line.send({ type: "unsubscribe", id: randomId(), room });
      },
    };
  }

  // For a room that no server takes: nothing of it reaches one.
  #noLink() {
    const client = this;
    return {
      get user() { return client.user; },
      isLive: false,
      send: () => {},
      command: (...parts) => client.command(...parts),
      request: ({ room }) => Promise.reject(new ClientError("malformed", objection(room) ?? "the room was denied")),
      forget: (room) => client.#rooms.delete(room),
    };
  }

  #request(frame) {
    if (this.ended.signal.aborted) return Promise.reject(new ClientError("closed", CLOSED));
    if (this.#requests.size >= REQUESTS_MAX) return Promise.reject(new ClientError("queue_full", `${REQUESTS_MAX} requests wait already`));
    const id = randomId();
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { frame: { ...frame, id }, resolve, reject });
      if (this.greeting) this.#line.send({ ...frame, id });
    });
  }

  #stands(status) {
    if (this.#isTaken(status)) return;
    if (status.state !== "live" && this.greeting) {
      this.greeting = null;
      this.#outbox.lost();
      for (const room of this.#rooms.values()) room.lost();
    }
    this.emit("status", this.status);
  }

  // A tab and its copy begin with the same session where they do not share a line: who came first takes another, once.
  #isTaken({ state, code }) {
    if (state !== "closed" || code !== REPLACED_CLOSE || this.#isShared || this.#options.session || this.#hasMoved) return false;
    this.#hasMoved = true;
    this.#line.wake();
    return true;
  }

  #take(message) {
    switch (message.type) {
      case "ready": this.#ready(message); break;
      case "ack": this.#outbox.answered(message); break;
      case "reject": this.#rejected(message); break;
      case "page": this.#answered(message); break;
      case "subscribed": this.#subscribed(message); break;
      case "authenticate": this.#isRenewing = true; break;
      case "authenticated": this.#renewed(); break;
      default: this.#rooms.get(message.room)?.take(message);
    }
    if (message.type === "event" && message.room === ME) this.#doneElsewhere(message);
    this.emit("message", message);
  }

  // What was done on another device, if one's own stream is followed.
  #doneElsewhere({ name, data }) {
    const room = this.#rooms.get(data?.room);
    if (name === "ReadMarkerMoved") room?.seenElsewhere(data.revision);
    if (name === "InvitationEnded" && data.outcome === "accepted") room?.entered();
  }

  #renewed() {
    this.#isRenewing = false;
    for (const room of this.#rooms.values()) room.renewed();
  }

  #ready(message) {
    this.#isRenewing = false;
    const rejoins = this.greeting !== null;
    this.greeting = message;
    this.user = message.user;
    this.#outbox.messageBytesMax = message.limits?.message_bytes_max ?? Infinity;
    const entries = new Map((message.rooms ?? []).map((entry) => [entry.room, entry]));
    for (const room of [...this.#rooms.values()]) {
      if (rejoins) room.lost();
      if (entries.has(room.id)) {
        room.lost(); // what was asked for before this line is answered by it
        room.attached(entries.get(room.id));
      } else if (room.state !== "denied" && room.state !== "closed") room.subscribe();
    }
    for (const { frame } of this.#requests.values()) this.#line.send(frame);
    const [epoch] = (message.rooms ?? []).map((entry) => entry.epoch).filter(Boolean);
    this.#epochAsked = null;
    this.#outbox.ready(epoch ?? null);
    if (epoch !== undefined) this.#epoch = epoch;
    else this.#askEpoch();
    this.emit("ready", message);
  }

  // All rooms are of one history. A server tells which with each room that is followed; where none is,
  // one's own stream is asked for as soon as something waits for that, and left again.
  #askEpoch() {
    if (this.#epochAsked !== null || !this.#outbox.awaitsEpoch) return;
    if (["joining", "catching_up"].includes(this.#rooms.get(ME)?.state)) return;
    this.#epochAsked = randomId();
    this.#line.send({ type: "subscribe", id: this.#epochAsked, room: ME });
  }

  #epochTold(id) {
    if (id === undefined || id !== this.#epochAsked) return false;
    this.#epochAsked = null;
    if (!this.#rooms.has(ME)) this.#line.send({ type: "unsubscribe", id: randomId(), room: ME });
    return true;
  }

  #subscribed(message) {
    this.#epochTold(message.id);
    this.#rooms.get(message.room)?.take(message);
    this.#epoch = message.epoch ?? this.#epoch;
    this.#outbox.isOf(this.#epoch);
  }

  #rejected(refusal) {
    // With `token_expired` a new token is on its way: whatever it was waits for that.
    this.#isRenewing ||= refusal.code === "token_expired";
    const message = refusal.code === "token_expired" ? { ...refusal, retry: true, after_ms: refusal.after_ms ?? TOKEN_WITHIN_MS } : refusal;
    if (this.#requests.has(message.id)) return this.#answered(message);
    if (this.#outbox.answered(message)) return undefined;
    // Who may not even follow themselves is told nothing: the server is to judge what waits.
    if (this.#epochTold(message.id)) return this.#outbox.isOf(this.#epoch);
    const room = [...this.#rooms.values()].find((one) => one.refused(message));
    if (room?.id === ME && room.state === "denied") this.#outbox.isOf(this.#epoch);
    return undefined;
  }

  #answered(message) {
    const request = this.#requests.get(message.id);
    if (!request) return;
    if (message.retry) {
      setTimeout(() => this.#requests.has(message.id) && this.greeting && this.#line.send(request.frame), message.after_ms ?? 1_000);
      return;
    }
    this.#requests.delete(message.id);
    if (message.type === "page") request.resolve(message);
    else request.reject(new Rejected(message));
  }

  // It is certain which tab this is, and so which of the stored commands are its own.
  #isTab(tab) {
    this.tab = tab;
    this.#outbox.belongsTo(tab);
    this.#outbox.adopt((owner) => owner === tab);
    if (!this.#isShared) this.#adoptAlone();
  }

  // Of tabs with a line each none is told which others go: what those that are gone have left is taken at the
  // beginning. Where nothing tells which live, in Node say, all that is stored is this client's.
  #adoptAlone() {
    const { signal } = this.ended;
    const takeAll = () => signal.aborted || this.#outbox.adopt(() => true);
    if (typeof document !== "object" || typeof navigator.locks?.request !== "function") takeAll();
    else live(this.#space, this.tab, signal, signal, () => this.#adoptOrphans()).catch(takeAll);
  }

  // What tabs left behind that are gone is this tab's to send. A tab that is loaded anew is gone for a moment, too.
  #adoptOrphans() {
    setTimeout(async () => {
      const locks = await navigator.locks.query().catch(() => null);
      // Where the browser does not say which are, it stays stored until the next one goes that this one hears of.
      if (this.ended.signal.aborted || (locks === null && this.#isShared)) return;
      const alive = new Set((locks?.held ?? []).map(({ name }) => name));
      this.#outbox.adopt((owner) => !alive.has(tabLock(this.#space, owner)));
    }, RELOADED_WITHIN_MS);
  }

  #watchNetwork() {
    if (typeof document !== "object") return;
    const { signal } = this.ended;
    let wasOffline = false;
    const leaves = () => {
      this.#tellSeen();
      this.#line.tellLast();
    };
    addEventListener("pagehide", leaves, { signal });
    addEventListener("offline", () => { wasOffline = true; }, { signal });
    addEventListener("online", () => {
      // A line that stood before the network changed may be dead without knowing.
      if (wasOffline && this.greeting) this.#line.renew();
      else this.#line.wake();
      wasOffline = false;
    }, { signal });
    document.addEventListener("visibilitychange", () => {
      // Nothing more may be said once a phone ends what is out of sight, or a browser a stream with its page.
      if (document.hidden) leaves();
      else if (this.status.state === "waiting") this.#line.wake();
    }, { signal });
  }
}
