// The messages on the page. Draws at most once per animation frame, however fast events come.

import { bareId, button, clockText, dayText, hueOf, make, paintAvatar } from "./dom.js";

const GROUP_GAP_MS = 5 * 60_000;
const BOTTOM_PX = 48;
const HISTORY_PX = 300;
export const EMOJI = ["👍", "❤️", "😂", "🎉", "😮", "😢"];

export class Timeline {
  // `on` has: older(), latest(), reply(item), edit(item), remove(item), react(item, emoji), retry(pending), discard(pending).
  constructor(parts, me, on) {
    Object.assign(this, parts); // scroller, list, pill, historyNote
    this.me = me;
    this.on = on;
    this.room = null;
    this.pending = [];
    this.drawn = new Map(); // key -> { element, body, signature }
    this.isAtBottom = true;
    this.unseen = 0;
    this.isDue = false;
    this.tools = this.makeTools();
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.pill.addEventListener("click", () => this.toLatest());
    const observer = new ResizeObserver(() => this.isAtBottom && this.stick());
    for (const element of [this.scroller, this.list, this.historyNote]) observer.observe(element);
    this.list.addEventListener("mouseover", (event) => this.showTools(event.target));
    this.list.addEventListener("focusin", (event) => this.showTools(event.target));
    this.list.addEventListener("keydown", (event) => this.moveFocus(event));
  }

  show(room) {
    this.room = room;
    this.isAtBottom = true;
    this.unseen = 0;
    this.due();
  }

  due() {
    if (this.isDue) return;
    this.isDue = true;
    // A hidden page gets no frames; it draws now and then, so that it does not pile up.
    if (document.hidden) setTimeout(() => this.draw(), 500);
    else requestAnimationFrame(() => this.draw());
  }

  arrived() {
    if (!this.isAtBottom) this.unseen += 1;
    this.due();
  }

  draw() {
    this.isDue = false;
    if (!this.room) return;
    if (this.isAtBottom) this.room.trim();
    const anchor = this.isAtBottom ? null : this.anchor();
    this.reconcile([...this.room.items, ...(this.room.isDetached ? [] : this.pending)]);
    if (anchor?.element.isConnected) {
      this.scroller.scrollTop += anchor.element.getBoundingClientRect().top - anchor.top;
    }
    if (this.isAtBottom) this.stick();
    this.drawNotes();
  }

  drawNotes() {
    const { hasMore, items, isDetached, isLive } = this.room;
    this.pill.hidden = !isDetached && (this.isAtBottom || this.unseen === 0);
    const count = this.unseen === 1 ? "1 new message" : `${this.unseen} new messages`;
    this.pill.textContent = this.unseen > 0 ? `↓ ${count}` : "↓ Jump to the latest";
    if (hasMore) this.historyNote.textContent = "Scroll up for earlier messages";
    else if (items.length > 0) this.historyNote.textContent = "This is where the room begins";
    else this.historyNote.textContent = isLive ? "Nothing has been said here yet" : "";
    // A page of history that does not fill the screen leaves nothing to scroll.
    if (hasMore && isLive && this.scroller.scrollHeight <= this.scroller.clientHeight + 8) this.on.older();
  }

  reconcile(items) {
    const wanted = new Set(items.map((item) => item.key));
    for (const [key, { element }] of this.drawn) {
      if (wanted.has(key)) continue;
      element.remove();
      this.drawn.delete(key);
    }
    let cursor = this.list.firstElementChild;
    let previous = null;
    for (const item of items) {
      const element = this.elementOf(item, previous);
      if (element === cursor) cursor = cursor.nextElementSibling;
      else this.list.insertBefore(element, cursor);
      previous = item;
    }
    while (cursor) {
      const next = cursor.nextElementSibling;
      cursor.remove();
      cursor = next;
    }
  }

  elementOf(item, previous) {
    const isNewDay = !previous || dayText(previous.at) !== dayText(item.at);
    const isGrouped = !isNewDay && item.type === "message" && previous.type === "message"
      && previous.by === item.by && item.at - previous.at < GROUP_GAP_MS
      && item.kind !== "action" && previous.kind !== "action" && item.replyTo === null;
    const quoted = item.replyTo === null ? null : this.room.byRevision.get(item.replyTo);
    const signature = [item.version, isNewDay, isGrouped, quoted?.version, quoted && this.room.nameOf(quoted.by), this.room.id,
      this.room.nameOf(item.by), item.state, item.problem].join("|");
    let drawn = this.drawn.get(item.key);
    if (drawn?.signature === signature) return drawn.element;
    if (!drawn) {
      const body = make("div", "body");
      drawn = { element: make("li", "", body), body };
      drawn.element.tabIndex = -1;
      drawn.element.dataset.key = item.key;
      this.drawn.set(item.key, drawn);
    }
    drawn.signature = signature;
    if (item.isRemoved && this.tools.parentElement === drawn.element) this.tools.remove();
    drawn.element.className = `${item.type} ${item.kind ?? ""} ${isGrouped ? "grouped" : ""} ${item.state ?? ""} ${item.by === this.me ? "mine" : ""}`;
    drawn.body.replaceChildren(...this.content(item, isNewDay, isGrouped, quoted));
    return drawn.element;
  }

  content(item, isNewDay, isGrouped, quoted) {
    const parts = isNewDay ? [make("div", "day", make("span", "", dayText(item.at)))] : [];
    if (item.type === "line") return [...parts, make("div", "line-text", item.text, " ", this.time(item))];
    const name = this.room.nameOf(item.by);
    const main = make("div", "main");
    if (item.replyTo !== null) main.append(this.quote(item, quoted));
    if (!isGrouped && item.kind !== "action") {
      const author = make("span", "author", name);
      author.title = item.by;
      author.style.setProperty("--hue", hueOf(item.by));
      main.append(make("div", "who", author, item.by.startsWith("persona:") ? make("span", "badge", "AI") : null, this.time(item)));
    }
    main.append(this.text(item, name));
    if (item.reactions.size > 0) main.append(this.chips(item));
    if (item.state === "rejected") main.append(this.refusal(item));
    const gutter = make("div", "gutter");
    if (item.kind === "action") gutter.append(make("span", "star", "✦"));
    else if (isGrouped) gutter.append(this.time(item));
    else {
      const avatar = make("span", "avatar");
      avatar.setAttribute("aria-hidden", "true");
      paintAvatar(avatar, item.by, name);
      gutter.append(avatar);
    }
    return [...parts, make("div", "row", gutter, main)];
  }

  text(item, name) {
    if (item.isRemoved) return make("div", "text removed", item.kind === "action" ? `* ${name}: message removed` : "message removed");
    const words = linked(item.text);
    const text = make("div", "text", ...(item.kind === "action" ? [`* ${name} `, ...words] : words));
    if (item.isEdited) text.append(make("span", "edited", " (edited)"));
    if (item.kind === "action") text.append(" ", this.time(item));
    return text;
  }

  time(item) {
    const time = make("time", "", clockText(item.at));
    if (!Number.isNaN(item.at.getTime())) time.dateTime = item.at.toISOString();
    time.title = item.at.toLocaleString();
    return time;
  }

  quote(item, quoted) {
    const words = quoted ? (quoted.isRemoved ? "message removed" : quoted.text) : "an earlier message";
    const label = quoted ? `${this.room.nameOf(quoted.by)}: ` : "";
    const element = button("quote", `In reply to ${label}${words}`, "", () => this.jumpTo(item.replyTo));
    element.append(make("b", "", label), words);
    element.disabled = !quoted;
    return element;
  }

  chips(item) {
    const chips = [...item.reactions].map(([emoji, members]) => {
      const names = [...members].map((member) => this.room.nameOf(member)).join(", ");
      const chip = button("chip", `${emoji} by ${names}`, `${emoji} ${members.size}`, () => this.on.react(item, emoji));
      chip.setAttribute("aria-pressed", String(members.has(this.me)));
      return chip;
    });
    return make("div", "chips", ...chips);
  }

  refusal(pending) {
    return make("div", "refusal", make("span", "", `Not sent: ${pending.problem}`),
      button("quiet", "Send this message again", "Retry", () => this.on.retry(pending)),
      button("quiet", "Discard this message", "Discard", () => this.on.discard(pending)));
  }

  // One set of tools for all messages; it moves to the one in hand.
  makeTools() {
    const act = (name) => () => this.toolItem && this.on[name](this.toolItem);
    const emoji = EMOJI.map((sign) => button("tool", `React with ${sign}`, sign, () => {
      this.on.react(this.toolItem, sign);
      this.tools.classList.remove("open");
    }));
    this.ownTools = [button("tool", "Edit", "Edit", act("edit")), button("tool", "Remove", "Remove", act("remove"))];
    const more = button("tool", "React", "React", () => {
      const isOpen = this.tools.classList.toggle("open");
      more.setAttribute("aria-expanded", String(isOpen));
    });
    const tools = make("div", "tools", make("span", "emoji", ...emoji), more,
      button("tool", "Reply", "Reply", act("reply")), ...this.ownTools);
    tools.setAttribute("role", "toolbar");
    tools.setAttribute("aria-label", "Message actions");
    return tools;
  }

  showTools(target) {
    const element = target.closest?.("li");
    if (!element || this.tools.parentElement === element) return;
    // Focus inside another message's tools stays where it is.
    if (this.tools.contains(document.activeElement) && !element.contains(document.activeElement)) return;
    const item = this.room?.byRevision.get(Number(element.dataset.key));
    this.tools.classList.remove("open");
    this.tools.remove();
    if (!item || item.type !== "message" || item.isRemoved || !this.room.members.has(this.me)) return;
    this.toolItem = item;
    for (const tool of this.ownTools) tool.hidden = item.by !== this.me;
    element.append(this.tools);
  }

  moveFocus(event) {
    const element = event.target;
    if (element.tagName !== "LI") return;
    const next = { ArrowUp: element.previousElementSibling, ArrowDown: element.nextElementSibling }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  focusLast() {
    this.list.lastElementChild?.focus();
  }

  jumpTo(revision) {
    const drawn = this.drawn.get(revision);
    if (!drawn) return;
    drawn.element.scrollIntoView({ block: "center" });
    drawn.element.focus({ preventScroll: true });
  }

  toLatest() {
    this.unseen = 0;
    this.isAtBottom = true;
    if (this.room.isDetached) this.on.latest();
    this.due();
  }

  stick() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.isAtBottom = !this.room?.isDetached && scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
    if (this.isAtBottom && this.unseen > 0) {
      this.unseen = 0;
      this.due();
    }
    if (scrollTop < HISTORY_PX && this.room?.hasMore) this.on.older();
  }

  // The first message in sight: it stays where it is while others come and go around it.
  anchor() {
    const edge = this.scroller.getBoundingClientRect().top;
    for (const element of this.list.children) {
      const { top, bottom } = element.getBoundingClientRect();
      if (bottom > edge) return { element, top };
    }
    return null;
  }
}

// Text with its web addresses made into links.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}])/).map((part, index) => {
    if (index % 2 === 0) return part;
    const link = make("a", "", part);
    link.href = part;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return link;
  });
}

export const describe = (room, item) => `${room.nameOf(item.by) || bareId(item.by)}: ${item.text}`;
