// One connection for all tabs of a person.
//
// The tabs elect a leader by a Web Lock; it holds the connection and passes every message on
// over a BroadcastChannel. Each tab keeps its own cursors and drops what it has handled, as
// after a reconnect, so a tab may come, go or take over at any time. Web Locks and
// BroadcastChannel are in Chromium, Firefox and Safari; a SharedWorker is not on phones.
// A leader that the system froze does not answer: a tab in sight then takes the lock from it.
//
// Each tab holds a lock of its own while it lives; the leader asks for it too, and once it gets it
// the tab is gone. So a tab says nothing before it holds its lock.
//
// A browser that keeps nothing for a page, because its user forbids that say, has the calls and refuses
// them: there no tab could ever lead, and each needs a line of its own.

import { Connection } from "./connection.js";
import { randomId } from "./ids.js";
import { freshSessionId, freshTabId, live, tabLock } from "./tab.js";

/**
 * A tab's lock that stays taken for so long is not on its way from the tab before a reload: another
 * tab lives under this id, of which this one is a copy.
 */
const OWN_LOCK_WITHIN_MS = 500;
const PROBE_EVERY_MS = 5_000;
const ANSWER_WITHIN_MS = 2_000;
/** A leader whose source of tokens fails so often, while it has no line, lets another tab try with its own. */
const TOKEN_FAILURES_MAX = 3;
const TOKEN_CLOSE = 4501;
const REPLACED_CLOSE = 4507;

/** Whether tabs can share a connection here. */
export function canShare() {
  return typeof document === "object" && typeof BroadcastChannel === "function" && typeof navigator.locks?.request === "function";
}

/**
 * Has the calls and callbacks of a `Connection`, and three more: `named(tab)`, once it is certain which
 * tab this is, `gone(tab)`, told to the leader, and `refused()`: nothing can be shared here after all, and
 * this relay has ended.
 */
export class Relay {
  #connection = null;
  #followers = new Set();
  #followed = new Map(); // room -> tabs that follow it
  #leader = null; // the tab whose welcome was taken: what others say as leaders is not, until theirs is
  #isStopped = false;
  #isBarred = false; // its token was refused: it does not lead, unless asked to or another's line stands
  #answerTimer = null;

  /**
   * @param {object} options those of a `Connection`, and
   * @param {string} options.space names what is shared: one user at one server
   * @param {string} options.tab of this tab, if no other lives under it
   */
  constructor(options, on) {
    this.options = options;
    this.on = on;
    /** Unique to this tab; null until that is certain. */
    this.tab = null;
    /** @type {import("./connection.js").Status} */
    this.status = { state: "connecting", role: "follower" };
    this.ready = null;
  }

  get isLeader() {
    return this.#connection !== null;
  }

  start() {
    this.ended = new AbortController();
    this.onVisible = () => document.hidden || this.#probe();
    try {
      this.channel = new BroadcastChannel(this.options.space);
    } catch {
      this.#refuse();
      return;
    }
    this.channel.onmessage = ({ data }) => this.#hear(data);
    this.#enter();
  }

  stop() {
    this.#isStopped = true;
    this.#post({ kind: "bye" });
    document.removeEventListener("visibilitychange", this.onVisible);
    clearInterval(this.probing);
    clearTimeout(this.#answerTimer);
    const connection = this.#connection;
    this.#connection = null;
    connection?.stop();
    this.ended.abort();
    this.release?.();
    this.channel?.close();
  }

  // The browser grants no locks or channels, now or any more.
  #refuse() {
    if (this.#isStopped) return;
    this.stop();
    this.on.refused();
  }

  send(message) {
    if (this.#connection) this.#forward(this.tab, message);
    else this.#post({ kind: "send", message });
  }

  tellLast() {
    this.#connection?.tellLast();
  }

  wake() {
    if (this.#connection) return this.#connection.wake();
    this.#post({ kind: "wake" });
    return this.#unbar();
  }

  renew() {
    if (this.#connection) this.#connection.renew();
    else this.#post({ kind: "renew" });
  }

  // A tab that is not named yet says nothing: once it is, the leader's welcome has it say all anew.
  #post(parcel) {
    if (this.tab !== null) this.channel.postMessage({ ...parcel, from: this.tab });
  }

  async #enter() {
    let { tab } = this.options;
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), OWN_LOCK_WITHIN_MS);
    const isOwn = await this.#hold(tab, patience.signal);
    clearTimeout(timer);
    if (this.#isStopped) return;
    if (!isOwn) {
      tab = freshTabId();
      await this.#hold(tab, this.ended.signal);
    }
    if (this.#isStopped) return;
    this.tab = tab;
    this.on.named?.(tab);
    this.#attach();
    this.#campaign(false);
    document.addEventListener("visibilitychange", this.onVisible);
    this.probing = setInterval(this.onVisible, PROBE_EVERY_MS);
  }

  // Whether the lock was granted in time; it is then held for as long as this tab lives.
  #hold(tab, signal) {
    return new Promise((resolve) => {
      live(this.options.space, tab, this.ended.signal, signal, () => resolve(true)).catch((error) => {
        if (!isAbort(error)) this.#refuse();
        resolve(false);
      });
    });
  }

  // Waits for the leader's place; `steal` takes it from one that does not answer.
  async #campaign(steal) {
    const how = steal ? { steal: true } : { signal: this.ended.signal };
    try {
      await navigator.locks.request(this.options.space, how, () => this.#isStopped ? undefined : this.#lead());
    } catch (error) {
      if (!isAbort(error)) this.#refuse();
      // Aborted at the end, or the place was taken from this tab.
      else if (!this.#isStopped) this.#stepDown();
    }
  }

  #lead() {
    clearTimeout(this.#answerTimer);
    this.#leader = null;
    this.#isBarred = false;
    this.#followed.clear();
    let failures = 0;
    const connection = new Connection(this.options, {
      status: (status) => {
        if (status.state === "live") failures = 0;
        if (connection === this.#connection) this.#stands(status);
      },
      message: (message) => connection === this.#connection && this.#tell({ kind: "message", message }),
      problem: (error) => {
        this.on.problem(error);
        if (connection.status.state !== "live") failures += 1;
        if (failures >= TOKEN_FAILURES_MAX && connection === this.#connection && this.#followers.size > 0) this.#stepDown();
      },
    });
    this.#connection = connection;
    connection.start();
    this.on.gone?.(null);
    return new Promise((release) => { this.release = release; });
  }

  #stands(status) {
    if (status.code === REPLACED_CLOSE) this.#replaced();
    else if (status.state === "closed" && status.code === TOKEN_CLOSE) this.#giveWay(status);
    else this.#tell({ kind: "status", status });
  }

  // This session goes on elsewhere. Another tab took the lead while this one was frozen; or, where this one has it
  // still, another browser has the same session, as copies of one machine do: then the tabs of this one take another.
  async #replaced() {
    const connection = this.#connection;
    const { held = [] } = await navigator.locks.query().catch(() => ({}));
    if (connection !== this.#connection || this.#isStopped) return;
    const holder = (name) => held.find((lock) => lock.name === name)?.clientId;
    const own = holder(tabLock(this.options.space, this.tab));
    if (own === undefined || holder(this.options.space) !== own) {
      this.#stepDown();
      return;
    }
    connection.session = this.options.session = freshSessionId(this.options.space);
    connection.renew();
  }

  // This tab's token is refused; another tab's may still hold, so that the others hear nothing of it.
  #giveWay(status) {
    const connection = this.#connection;
    this.#isBarred = true;
    this.#leader = null;
    this.#connection = null;
    this.#followers.clear();
    this.#take({ kind: "status", status });
    connection.stop();
    this.release?.();
  }

  #unbar() {
    if (!this.#isBarred || this.#isStopped) return;
    this.#isBarred = false;
    this.#campaign(false);
  }

  // Another tab leads now, or may: this one was frozen, or is one too many, or has no token.
  #stepDown() {
    const connection = this.#connection;
    if (!connection) return;
    this.#connection = null;
    connection.stop();
    this.release?.();
    this.#followers.clear();
    this.#attach();
    this.#campaign(false);
  }

  #tell(parcel) {
    this.#post(parcel);
    this.#take(parcel);
  }

  #take({ kind, status, message }) {
    if (kind === "status") {
      this.status = { ...status, role: this.#connection ? "leader" : "follower" };
      if (status.state === "live") this.#unbar();
      if (status.state !== "live") this.ready = null;
      this.on.status(this.status);
    } else {
      if (message.type === "ready") this.ready = message;
      this.on.message(message);
    }
  }

  #hear(parcel) {
    if (this.#isStopped || this.tab === null) return;
    if (this.#connection) this.#serve(parcel);
    else this.#follow(parcel);
  }

  // The leader's side.
  #serve({ kind, from, message }) {
    switch (kind) {
      case "attach": this.#welcome(from); break;
      case "probe": this.#post({ kind: "here", to: from, state: this.#connection.status.state }); break;
      case "send": this.#forward(from, message); break;
      case "wake": this.#connection.wake(); break;
      case "renew": this.#connection.renew(); break;
      case "bye": this.#forget(from); break;
      default: // another leader speaks: the lock settles who goes
    }
  }

  #welcome(tab) {
    this.#register(tab);
    this.#post({ kind: "welcome", to: tab, status: this.#connection.status, ready: this.#connection.ready });
  }

  #register(tab) {
    if (tab === this.tab || this.#followers.has(tab)) return;
    this.#followers.add(tab);
    const { signal } = this.ended;
    // Not before the lock is free again: as long as it is held the tab counts as there.
    navigator.locks.request(tabLock(this.options.space, tab), { signal }, () => {}).then(() => this.#forget(tab), () => {});
  }

  #forget(tab) {
    if (!this.#connection || !this.#followers.delete(tab)) return;
    for (const [room, tabs] of [...this.#followed]) {
      if (tabs.delete(tab) && tabs.size === 0) this.#leave(room);
    }
    // Should it be there after all, it says again what it follows.
    this.#post({ kind: "forgotten", to: tab });
    this.on.gone?.(tab);
  }

  #leave(room) {
    this.#followed.delete(room);
    this.#connection.send({ type: "unsubscribe", id: randomId(), room });
  }

  #forward(tab, message) {
    this.#register(tab);
    if (message.type === "subscribe") {
      if (!this.#followed.has(message.room)) this.#followed.set(message.room, new Set());
      this.#followed.get(message.room).add(tab);
    } else if (message.type === "unsubscribe") {
      const tabs = this.#followed.get(message.room);
      tabs?.delete(tab);
      if (tabs?.size > 0) return; // others still follow it
      this.#followed.delete(message.room);
    }
    this.#connection.send(message);
  }

  // The follower's side. A leader that was frozen may speak on for a moment after another took its place: one's
  // leader is who gave the last welcome, and whoever else speaks as one is asked for theirs.
  #follow(parcel) {
    const { kind, from, to } = parcel;
    if (to !== undefined && to !== this.tab) return;
    if (kind === "here" || kind === "welcome") clearTimeout(this.#answerTimer);
    const isLeader = from === this.#leader;
    if (kind === "welcome" && this.#leader === null) {
      this.#leader = from;
      // As after a reconnect, but with no room attached yet: the rooms are asked for one by one.
      if (parcel.ready) this.#take({ kind: "message", message: { ...parcel.ready, rooms: [] } });
      this.#take({ kind: "status", status: parcel.status });
    } else if (kind === "forgotten") this.#attach();
    else if (kind === "message" || kind === "status") {
      if (isLeader) this.#take(parcel);
      else if (kind === "status" || this.#leader !== null) this.#attach();
    } else if (kind === "here" && !(isLeader && parcel.state === this.status.state)) this.#attach();
  }

  // Asks for a leader's welcome; nothing else that a leader says counts before it.
  #attach() {
    this.#leader = null;
    this.#post({ kind: "attach" });
  }

  // Asks whether the leader is awake; wakes a wait that the leader's own timers may sleep through.
  #probe() {
    // Where all were refused none leads.
    if (this.#connection || this.#isStopped || (this.#isBarred && this.status.state === "closed")) return;
    this.#post({ kind: "probe" });
    if (this.#leader === null) this.#attach();
    if (this.status.state === "waiting" && Date.now() > this.status.retryAt) this.wake();
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => this.#campaign(true), ANSWER_WITHIN_MS);
  }
}

// A request for a lock that ends so was given up, or its lock taken: others ended because none are to be had.
const isAbort = (error) => error?.name === "AbortError";
