// The room's messages and where a reader stands in them: at the end, or somewhere in the past.
// Draws at most once per animation frame, however fast events come.

import { MessageList } from "./message-list.js";

const BOTTOM_PX = 48;
const HISTORY_PX = 400;
const HIDDEN_MS = 500;

export class Timeline {
  /** @param {object} on those of a `MessageList`, and `atBottom()`: the newest is in sight */
  constructor(parts, on) {
    Object.assign(this, parts); // scroller, list, pill, historyNote
    this.on = on;
    this.messages = new MessageList(this.list, on);
    this.conversation = null;
    this.isAtBottom = true;
    this.unseen = 0;
    this.isDue = false;
    this.last = this.place(); // where the scroller stood when it was looked at last
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.pill.addEventListener("click", () => this.toLatest());
    const observer = new ResizeObserver(() => this.isAtBottom && this.stick());
    for (const element of [this.scroller, ...this.scroller.children]) observer.observe(element);
    // A frame that was asked for is held back for as long as the page is hidden.
    document.addEventListener("visibilitychange", () => this.isDue && this.plan());
    this.atMidnight();
  }

  // What was today is yesterday then.
  atMidnight() {
    const now = new Date();
    const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1);
    setTimeout(() => {
      this.due();
      this.atMidnight();
    }, midnight - now + 1_000);
  }

  show(conversation) {
    this.conversation = conversation;
    // Where the newest is not held the end of what is held is shown, and the newest not seen by that.
    this.isAtBottom = true;
    this.unseen = 0;
    this.due();
  }

  due() {
    if (this.isDue) return;
    this.isDue = true;
    this.plan();
  }

  // A hidden page gets no frames; it draws now and then, so that it does not pile up.
  plan() {
    const draw = () => this.isDue && this.draw();
    if (document.hidden) setTimeout(draw, HIDDEN_MS);
    else requestAnimationFrame(draw);
  }

  arrived() {
    if (!this.isAtBottom) this.unseen += 1;
    this.due();
  }

  draw() {
    this.isDue = false;
    const { conversation } = this;
    if (!conversation) return;
    const { window } = conversation;
    if (this.isAtBottom) window.trim();
    const anchor = this.isAtBottom ? null : this.anchor();
    this.messages.draw(conversation, [...window.items, ...conversation.onTheirWay], conversation.newFrom);
    if (anchor?.element.isConnected) {
      this.scroller.scrollTop += anchor.element.getBoundingClientRect().top - anchor.top;
    }
    if (this.isAtBottom) this.stick();
    this.drawNotes(window);
    if (window.isDetached) this.isAtBottom = false;
    if (this.isAtBottom && window.isLive) this.on.atBottom();
  }

  drawNotes(window) {
    const { hasMore, items, isDetached, isLive } = window;
    this.pill.hidden = !isDetached && (this.isAtBottom || this.unseen === 0);
    const count = this.unseen === 1 ? "1 new message" : `${this.unseen} new messages`;
    this.pill.textContent = this.unseen > 0 ? `↓ ${count}` : "↓ Jump to the latest";
    if (hasMore) this.historyNote.textContent = "Loading earlier messages…";
    else if (items.length > 0) this.historyNote.textContent = "This is where the room begins";
    else this.historyNote.textContent = isLive && !this.conversation.problem ? "Nothing has been said here yet" : "";
    // A page of history that does not fill the screen leaves nothing to scroll.
    if (hasMore && isLive && this.scroller.scrollHeight <= this.scroller.clientHeight + 8) this.conversation.older();
  }

  toLatest() {
    this.unseen = 0;
    this.isAtBottom = true;
    if (this.conversation.window.isDetached) this.conversation.room.restart();
    this.due();
  }

  stick() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.last = this.place();
  }

  place() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return { scrollTop, scrollHeight, clientHeight };
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.place();
    const { last } = this;
    this.last = { scrollTop, scrollHeight, clientHeight };
    const window = this.conversation?.window;
    const wasAtBottom = this.isAtBottom;
    this.isAtBottom = !window?.isDetached && scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
    // The end is left by who scrolls up, not by what grows beneath, or by a bar that takes some of the room.
    const isBySize = scrollHeight !== last.scrollHeight || clientHeight !== last.clientHeight || scrollTop >= last.scrollTop;
    if (wasAtBottom && !this.isAtBottom && !window?.isDetached && isBySize) {
      this.isAtBottom = true;
      this.stick();
    }
    if (this.isAtBottom && !wasAtBottom) {
      this.unseen = 0;
      this.due();
    }
    if (scrollTop < HISTORY_PX && window?.hasMore) this.conversation.older();
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
