// How the connection stands, in words: quiet while all is well.

import { byId } from "./dom.js";

const OVER = { socket: "", stream: " (event stream)", poll: " (polling)" };
const FINAL = {
  4500: "The server did not understand this page. Reload it.",
  4501: "The server does not accept this sign-in.",
  4503: "You may not connect here.",
  4504: "This page speaks another version than the server. Reload it.",
  4505: "There are too many connections under this name.",
  4507: "This session went on in another window.",
};

export class StatusView {
  /** @param {import("/client.js").Client} client */
  constructor(client) {
    this.client = client;
    this.wasLive = false;
    byId("banner-now").addEventListener("click", () => client.wake());
    client.on("status", () => this.draw());
    client.on("pending", () => this.draw());
    this.draw();
  }

  draw() {
    clearTimeout(this.timer);
    const { state, transport, retryAt, code, role, reason } = this.client.status;
    const isLive = state === "live";
    this.wasLive ||= isLive;
    byId("status").dataset.state = state;
    byId("status-text").textContent = { live: "Connected", connecting: "Connecting", waiting: "Reconnecting", closed: "Disconnected" }[state];
    const shared = role === "alone" ? "" : role === "leader" ? ", line for all your tabs" : ", line of another tab";
    byId("line").textContent = isLive ? `Connected${OVER[transport] ?? ""}` : "Not connected";
    byId("line").title = isLive ? `over ${transport}${shared}` : reason ?? "";
    // The first moments of a visit are no news.
    byId("banner").hidden = isLive || (state === "connecting" && !this.wasLive);
    byId("banner-now").hidden = state === "connecting";
    byId("banner-now").textContent = state === "closed" ? "Connect" : "Try now";
    if (byId("banner").hidden) return;
    byId("banner").dataset.state = state;
    byId("banner-text").textContent = this.words(state, retryAt, code, reason);
    if (state === "waiting") this.timer = setTimeout(() => this.draw(), 1_000);
  }

  words(state, retryAt, code, reason) {
    if (state === "closed" && code === 4500 && reason) return `The server did not take what this page said: ${reason}`;
    if (state === "closed") return FINAL[code] ?? `Disconnected: ${reason}`;
    const waiting = this.client.pending.filter((entry) => entry.state === "waiting");
    const areKept = waiting.every(({ id }) => this.client.isKept(id));
    const what = waiting.length === 1 ? "One message is" : `${waiting.length} messages are`;
    const kept = waiting.length === 0 ? ""
      : ` ${what} ${areKept ? "kept and sent then" : "sent then if this page stays open: this browser could not keep all of it"}.`;
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    if (state === "waiting" && seconds > 1) return `No connection. Next try in ${seconds} s.${kept}`;
    return `Reconnecting…${kept}`;
  }
}
