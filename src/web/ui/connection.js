// The socket: hello, cursors, commands with their retries, heartbeat, reconnecting.
//
// Promises: the events of a room arrive in order and once; a command that was sent and not
// answered is sent again with its id. It knows nothing of what events mean.

import { randomId } from "./dom.js";

const RECONNECT_DEFAULT = { base_ms: 500, cap_ms: 30_000 };
const HEARTBEAT_DEFAULT_MS = 25_000;
const FINAL_CLOSE = {
  4500: "the server did not understand this page; reload it",
  4501: "the server does not accept this sign-in",
  4503: "you may not connect here",
  4504: "this page speaks another version than the server; reload it",
  4505: "too many connections under this name",
  4507: "this session went on in another window",
};

export class Connection {
  // `on` has: state(state, text), ready(), event(room, event), reset(room), live(room), denied(room, text).
  constructor(user, session, on) {
    this.user = user;
    this.session = session;
    this.on = on;
    this.socket = null;
    this.greeted = null;
    this.isReady = false;
    this.attempts = 0;
    this.reconnect = RECONNECT_DEFAULT;
    this.heartbeatMs = HEARTBEAT_DEFAULT_MS;
    this.slotMs = null;
    this.rooms = new Map(); // room -> { epoch, last, awaited }
    this.commands = new Map(); // id -> { frame, done }
    this.requests = new Map(); // id -> { resolve, reject }
    this.timer = null;
    this.isStopped = false;
    this.watchdog = setInterval(() => this.checkHeartbeat(), 5_000);
    this.onOnline = () => this.retryNow();
    window.addEventListener("online", this.onOnline);
    this.open();
  }

  // Attaches to a room at its latest page; a room that is held starts over.
  subscribe(room) {
    this.rooms.set(room, { epoch: null, last: null, awaited: null });
    this.greeted?.delete(room);
    if (this.isReady) this.sendSubscribe(room);
  }

  unsubscribe(room) {
    if (!this.rooms.delete(room) || !this.isReady) return;
    this.send({ type: "unsubscribe", id: randomId(), room });
  }

  // The last revision handled in a room, or null.
  lastOf(room) {
    return this.rooms.get(room)?.last ?? null;
  }

  // `done` is called once, with the ack or the reject.
  command(room, name, data, done, id = randomId()) {
    const frame = { type: "command", id, room, name, data };
    this.commands.set(id, { frame, done });
    if (this.isReady) this.send(frame);
    return id;
  }

  // Resolves with the page; rejects when the connection is lost or the server says no.
  history(room, before, limit) {
    if (!this.isReady) return Promise.reject(new Error("not connected"));
    const id = randomId();
    this.send({ type: "history", id, room, before, limit });
    return new Promise((resolve, reject) => this.requests.set(id, { resolve, reject }));
  }

  retryNow() {
    if (this.isStopped || this.socket) return;
    clearTimeout(this.timer);
    this.open();
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
    clearInterval(this.watchdog);
    window.removeEventListener("online", this.onOnline);
    this.socket?.close(1000);
  }

  open() {
    this.on.state("connecting", "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/socket`, "dramatis.v1.json");
    this.socket = socket;
    this.heardAt = Date.now();
    socket.onopen = () => {
      this.greeted = new Set(this.rooms.keys());
      const rooms = [...this.rooms].map(([room, { epoch, last }]) =>
        last === null || epoch === null ? { room } : { room, epoch, after: last });
      this.send({ type: "hello", user: this.user, session: this.session, rooms });
    };
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.receive(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.socket === socket) this.closed(code, reason);
    };
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  sendSubscribe(room) {
    const cursor = this.rooms.get(room);
    const id = randomId();
    cursor.awaited = id;
    const from = cursor.last === null || cursor.epoch === null ? {} : { epoch: cursor.epoch, after: cursor.last };
    this.send({ type: "subscribe", id, room, ...from });
  }

  receive(data) {
    this.heardAt = Date.now();
    for (const line of data.split("\n")) {
      if (line.trim() === "") continue;
      let message;
      try {
        message = JSON.parse(line);
      } catch {
        continue;
      }
      this.handle(message);
    }
  }

  handle(message) {
    switch (message.type) {
      case "ready": return this.ready(message);
      case "event": return this.event(message);
      case "live": return this.rooms.get(message.room)?.awaited ? undefined : this.on.live(message.room);
      case "subscribed": return this.subscribed(message);
      case "ack": return this.answered(message);
      case "reject": return this.rejected(message);
      case "page": return this.answeredRequest(message);
      case "ping": return this.send({ type: "pong" });
      case "drain": this.slotMs = { in_ms: message.in_ms ?? 0, slot_ms: message.slot_ms ?? 0 }; return undefined;
      case "closed": this.rooms.delete(message.room); return this.on.denied(message.room, message.code);
      default: return undefined; // a newer server may say more
    }
  }

  ready(message) {
    this.isReady = true;
    this.attempts = 0;
    this.slotMs = null;
    this.reconnect = { ...RECONNECT_DEFAULT, ...message.reconnect };
    this.heartbeatMs = message.heartbeat_ms ?? HEARTBEAT_DEFAULT_MS;
    this.on.state("live", "live");
    for (const entry of message.rooms ?? []) {
      if (this.rooms.has(entry.room)) this.attached(entry);
      else this.send({ type: "unsubscribe", id: randomId(), room: entry.room });
    }
    for (const room of this.rooms.keys()) {
      if (!this.greeted.has(room)) this.sendSubscribe(room);
    }
    for (const { frame } of this.commands.values()) this.send(frame);
    this.on.ready();
  }

  subscribed(message) {
    // Only the answer to the newest wish counts: events before it belong to an older one.
    if (this.rooms.get(message.room)?.awaited === message.id) this.attached(message);
  }

  attached({ room, epoch, head, how }) {
    const cursor = this.rooms.get(room);
    cursor.awaited = null;
    if (how === "denied") {
      this.rooms.delete(room);
      this.on.denied(room, "you may not read this room, or there is none of this name");
      return;
    }
    if (how === "reset" || cursor.last === null) {
      cursor.last = null;
      this.on.reset(room, head);
    }
    cursor.epoch = epoch;
  }

  event(event) {
    const cursor = this.rooms.get(event.room);
    if (!cursor || cursor.awaited) return;
    if (cursor.last !== null && event.revision <= cursor.last) return;
    if (cursor.last !== null && event.revision !== cursor.last + 1) {
      this.sendSubscribe(event.room);
      return;
    }
    cursor.last = event.revision;
    this.on.event(event.room, event);
  }

  answered(message) {
    const command = this.commands.get(message.id);
    this.commands.delete(message.id);
    command?.done(message);
  }

  rejected(message) {
    if (this.commands.has(message.id)) return this.answered(message);
    if (this.requests.has(message.id)) return this.answeredRequest(message);
    for (const [room, cursor] of this.rooms) {
      if (cursor.awaited !== message.id) continue;
      if (message.code === "ahead_of_log" && cursor.last !== null) {
        // What this page holds is not in the log any more: start over.
        this.subscribe(room);
        return undefined;
      }
      this.rooms.delete(room);
      this.on.denied(room, message.message);
    }
    return undefined;
  }

  answeredRequest(message) {
    const request = this.requests.get(message.id);
    this.requests.delete(message.id);
    if (message.type === "page") request?.resolve(message);
    else request?.reject(new Error(message.message));
  }

  checkHeartbeat() {
    if (!this.isReady || Date.now() - this.heardAt < 2 * this.heartbeatMs + 5_000) return;
    const socket = this.socket;
    this.closed(4002, ""); // a dead line may take minutes to report its own close
    socket?.close();
  }

  closed(code, reason) {
    this.socket = null;
    this.isReady = false;
    for (const cursor of this.rooms.values()) cursor.awaited = null;
    for (const { reject } of this.requests.values()) reject(new Error("the connection was lost"));
    this.requests.clear();
    if (this.isStopped) return;
    if (code >= 4500 && code <= 4999) {
      this.on.state("closed", FINAL_CLOSE[code] ?? (reason || `closed by the server (${code})`), code);
      return;
    }
    this.wait(this.delayMs());
  }

  // Full jitter: anywhere from nothing to the doubled step, so that a crowd does not return at once.
  delayMs() {
    const slot = this.slotMs;
    this.slotMs = null;
    if (slot) return slot.in_ms + Math.random() * slot.slot_ms;
    const step = Math.min(this.reconnect.cap_ms, this.reconnect.base_ms * 2 ** Math.min(this.attempts, 20));
    this.attempts += 1;
    return Math.random() * step;
  }

  wait(delayMs) {
    const until = Date.now() + delayMs;
    const tick = () => {
      const leftMs = until - Date.now();
      if (leftMs <= 0) return this.open();
      this.on.state("waiting", `reconnecting in ${Math.ceil(leftMs / 1000)} s`);
      this.timer = setTimeout(tick, Math.min(leftMs, 1000));
      return undefined;
    };
    tick();
  }
}
