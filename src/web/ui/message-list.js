// Draws messages into a list, keeps its elements, and offers what can be done with each.

import { arrange, bareId, button, clockText, dayText, hueOf, make, paintAvatar } from "./dom.js";
import { icon } from "./icons.js";
import { UNSEEN, isUnseen, seen, splitAddresses } from "./words.js";

const GROUP_GAP_MS = 5 * 60_000;
export const EMOJI = ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"];
const STATES = {
  sending: "Sending",
  waiting: "Will be sent once there is a connection",
};

export class MessageList {
  /**
   * @param {HTMLOListElement} list
   * @param {object} on `reply`, `thread`, `edit`, `remove`, `react(item, emoji)`, `retry`, `putBack`,
   *   `discard`, each called with an item
   * @param {{isThread?: boolean}} [how]
   */
  constructor(list, on, { isThread = false } = {}) {
    this.list = list;
    this.on = on;
    this.isThread = isThread;
    this.conversation = null;
    this.drawn = new Map(); // key -> { element, body, signature, item, parts }
    this.tools = this.makeTools();
    list.addEventListener("mouseover", (event) => this.showTools(event.target));
    list.addEventListener("focusin", (event) => {
      this.showTools(event.target);
      const element = event.target.closest("li");
      if (element) this.reach(element);
    });
    list.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows these items of a conversation, changing only what changed. */
  draw(conversation, items, newFrom = null) {
    // In another history the same revision is another message.
    if (conversation !== this.conversation || conversation.epoch !== this.epoch) {
      this.drawn.clear();
      this.list.replaceChildren();
    }
    this.conversation = conversation;
    this.epoch = conversation.epoch;
    this.me = conversation.me;
    this.counts = this.isThread ? new Map() : conversation.window.replyCounts();
    this.edits = conversation.edits;
    // Then there are more than is held.
    this.hasAll = !conversation.window.isDetached;
    this.firstNew = newFrom === null ? undefined
      : items.find((item) => item.type === "message" && item.revision >= newFrom && item.by !== this.me)?.key;
    const wanted = new Set(items.map((item) => item.key));
    const inFocus = [...this.list.children].findIndex((element) => element.contains(document.activeElement));
    for (const [key, { element }] of this.drawn) {
      if (wanted.has(key)) continue;
      element.remove();
      this.drawn.delete(key);
    }
    arrange(this.list, items.map((item, index) => this.elementOf(item, items[index - 1] ?? null)));
    if (this.list.contains(document.activeElement)) return;
    // Where a message went that had the focus, what stands in its place has it.
    const heir = inFocus < 0 ? null : this.list.children[inFocus] ?? this.list.lastElementChild;
    if (heir) heir.focus({ preventScroll: true });
    else this.reach(this.list.lastElementChild);
  }

  // Tab comes to one message, the last; arrows go on from there.
  reach(element) {
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = element;
    if (element) element.tabIndex = 0;
  }

  elementOf(item, previous) {
    const { window } = this.conversation;
    const isNewDay = !previous || dayText(previous.at) !== dayText(item.at);
    const isFirstNew = item.key === this.firstNew;
    const isGrouped = !isNewDay && !isFirstNew && item.type === "message" && previous.type === "message"
      && previous.by === item.by && item.at - previous.at < GROUP_GAP_MS
      && item.kind !== "action" && previous.kind !== "action" && (item.replyTo === null || this.isThread);
    const quoted = item.replyTo === null ? null : window.byRevision.get(item.replyTo);
    const replies = this.counts.get(item.revision) ?? 0;
    const edit = (!item.isRemoved && this.edits.get(item.revision)) || null;
    const signature = [item.version, isNewDay && dayText(item.at), isFirstNew, isGrouped, quoted?.version, quoted && window.nameOf(quoted.by),
      window.nameOf(item.by), item.state, this.conversation.mayWrite, item.problem, replies, replies > 0 && this.hasAll, JSON.stringify(edit)].join("|");
    let drawn = this.drawn.get(item.key);
    if (drawn) drawn.item = item;
    if (drawn?.signature === signature) return drawn.element;
    if (!drawn) {
      const body = make("div", "body");
      drawn = { element: make("li", "", body), body, item, parts: new Map() };
      drawn.element.tabIndex = -1;
      drawn.element.dataset.key = item.key;
      this.drawn.set(item.key, drawn);
    }
    drawn.signature = signature;
    const hadFocus = drawn.element.contains(document.activeElement);
    if (item.isRemoved && this.tools.parentElement === drawn.element) this.tools.remove();
    drawn.element.className = [item.type, item.kind === "action" && "action", isGrouped && "grouped", item.state, item.by === this.me && "mine"].filter(Boolean).join(" ");
    arrange(drawn.body, this.content(drawn, { isNewDay, isFirstNew, isGrouped, quoted, replies, edit }));
    if (hadFocus && !drawn.element.contains(document.activeElement)) drawn.element.focus({ preventScroll: true });
    return drawn.element;
  }

  // A part of a message, made anew only when what it shows has changed: what has the focus in the others
  // keeps it, and what is selected stays so.
  part(drawn, name, shown, create) {
    const signature = JSON.stringify(shown);
    const known = drawn.parts.get(name);
    if (known?.signature === signature) return known.element;
    const element = create();
    drawn.parts.set(name, { signature, element });
    return element;
  }

  content(drawn, { isNewDay, isFirstNew, isGrouped, ...more }) {
    const { item } = drawn;
    const part = (name, shown, create) => this.part(drawn, name, shown, create);
    const parts = [];
    if (isNewDay) parts.push(part("day", dayText(item.at), () => make("div", "day", make("span", "", dayText(item.at)))));
    if (isFirstNew) parts.push(part("fresh", null, () => make("div", "day fresh", make("span", "", "New"))));
    if (item.type === "gap") return [...parts, part("line", item.text, () => make("div", "line-text", item.text))];
    if (item.type === "line") return [...parts, part("line", item.text, () => make("div", "line-text", make("bdi", "", item.text), " ", this.time(item)))];
    const name = this.conversation.nameOf(item.by);
    const row = part("row", null, () => make("div", "row"));
    const main = part("main", null, () => make("div", "main"));
    arrange(main, this.mainParts(drawn, part, name, { isGrouped, ...more }));
    arrange(row, [part("gutter", [name, isGrouped], () => this.gutter(item, name, isGrouped)), main]);
    return [...parts, row];
  }

  mainParts(drawn, part, name, { isGrouped, quoted, replies, edit }) {
    const { item } = drawn;
    const parts = [];
    if (item.kind !== "action") parts.push(part("who", [name, isGrouped], () => this.who(item, name, isGrouped)));
    if (item.replyTo !== null && !this.isThread) parts.push(this.quote(drawn, part, quoted));
    parts.push(part("text", [item.kind === "action" && name, item.text, item.isRemoved, item.isEdited, item.state, edit], () => this.text(item, name, edit)));
    if (item.reactions.size > 0) parts.push(this.chips(drawn, part));
    if (replies > 0) {
      const label = !this.hasAll ? "Replies" : replies === 1 ? "1 reply" : `${replies} replies`;
      parts.push(part("replies", label, () => button("replies", this.hasAll ? `Open the thread of ${label}` : "Open the thread", label, () => this.on.thread(drawn.item))));
    }
    if (item.state === "refused" || item.state === "expired") {
      parts.push(part("refusal", [item.state, item.problem, item.expiredBy, item.isFinal, dayText(item.at), this.conversation.mayWrite], () => this.refusal(drawn)));
    } else if (edit ?? item.state) {
      const state = edit?.state ?? item.state;
      parts.push(part("state", [state, edit !== null], () => make("span", "hidden", edit ? `Your edit: ${STATES[state].toLowerCase()}` : STATES[state])));
    }
    return parts;
  }

  // Those of a group stand beneath the first one's name; who does not see that is told it with each.
  who(item, name, isGrouped) {
    if (isGrouped) return make("span", "hidden", `${name}:`);
    const author = make("span", "author", name);
    author.title = item.by;
    author.style.setProperty("--hue", hueOf(item.by));
    return make("div", "who", author, item.by.startsWith("persona:") ? make("span", "badge", "AI") : null, this.time(item));
  }

  gutter(item, name, isGrouped) {
    if (item.kind === "action") return make("div", "gutter", make("span", "star", "✦"));
    if (isGrouped) return make("div", "gutter", this.time(item));
    const avatar = make("span", "avatar");
    avatar.setAttribute("aria-hidden", "true");
    paintAvatar(avatar, item.by, name);
    return make("div", "gutter", avatar);
  }

  // With an edit of it that is on its way, the words are those.
  text(item, name, edit) {
    if (item.isRemoved) return make("div", "text removed", item.kind === "action" ? `${name}: message removed` : "Message removed");
    const { text: said, state } = edit ?? item;
    const words = isUnseen(said) ? [make("span", "unseen", UNSEEN)] : linked(said);
    const text = make("div", "text", ...(item.kind === "action" ? [make("b", "", name), " ", ...words] : words));
    if (item.isEdited || edit) text.append(make("span", "edited", " (edited)"));
    if (item.kind === "action") text.append(" ", this.time(item));
    if (state === "sending" || state === "waiting") {
      const mark = make("span", `mark ${state}`, state === "waiting" ? icon("clock") : "…");
      mark.title = STATES[state];
      text.append(mark);
    }
    return text;
  }

  time(item) {
    const time = make("time", "", clockText(item.at));
    if (!Number.isNaN(item.at.getTime())) time.dateTime = item.at.toISOString();
    time.title = item.at.toLocaleString();
    return time;
  }

  quote(drawn, part, quoted) {
    const words = quoted ? (quoted.isRemoved ? "message removed" : seen(quoted.text)) : "an earlier message";
    const label = quoted ? `${this.conversation.nameOf(quoted.by)}: ` : "";
    return part("quote", [label, words], () => {
      const open = ({ item }) => (this.conversation.window.byRevision.has(item.replyTo) ? this.jumpTo(item.replyTo) : this.on.thread(item));
      const element = button("quote", `In reply to ${label}${words}`, "", () => open(drawn));
      element.append(make("b", "", label), make("bdi", "", words));
      return element;
    });
  }

  chips(drawn, part) {
    const { conversation: { mayWrite }, me } = this;
    const { reactions } = drawn.item;
    const chips = [...reactions].map(([emoji, members]) => {
      const names = [...members].map((member) => this.conversation.nameOf(member)).join(", ");
      const chip = part(`chip ${emoji}`, null, () => button("chip", "", "", () => this.on.react(drawn.item, emoji)));
      chip.title = `${emoji} ${members.size} by ${names}`;
      chip.setAttribute("aria-label", chip.title);
      chip.replaceChildren(emoji, " ", make("span", "chip-count", String(members.size)));
      chip.setAttribute("aria-pressed", String(members.has(me)));
      chip.disabled = !mayWrite;
      return chip;
    });
    for (const name of drawn.parts.keys()) {
      if (name.startsWith("chip ") && !reactions.has(name.slice(5))) drawn.parts.delete(name);
    }
    const element = part("chips", null, () => make("div", "chips"));
    arrange(element, chips);
    return element;
  }

  refusal(drawn) {
    const { item } = drawn;
    const [what, not] = { post_message: ["", "Not sent"], edit_message: ["Your edit: ", "not saved"] }[item.name] ?? ["", "Not done"];
    const day = dayText(item.at);
    const why = item.state === "refused" ? item.problem
      : item.expiredBy === "history" ? "the room's history was replaced since it was written, and it is about a message of before."
        : `written ${["Today", "Yesterday"].includes(day) ? day.toLowerCase() : `on ${day}`}, and there was no connection until now.`;
    const mayHelp = item.state === "expired" ? item.expiredBy !== "history" : !item.isFinal;
    return make("div", "refusal", make("span", "", `${what}${not}: ${why}`),
      mayHelp ? button("quiet", "Send this message again", item.state === "expired" ? "Send it now" : "Retry", () => this.on.retry(drawn.item)) : null,
      item.isWriting && this.conversation.mayWrite ? button("quiet", "Put this text back to where you write", "Put back", () => this.on.putBack(drawn.item)) : null,
      button("quiet", "Discard this message", "Discard", () => this.on.discard(drawn.item)));
  }

  // One set of tools for all messages; it moves to the one in hand.
  makeTools() {
    const tool = (label, sign, name) => button("tool", label, icon(sign), () => this.toolItem && this.on[name](this.toolItem));
    const emoji = EMOJI.map((sign) => button("tool", `React with ${sign}`, sign, () => {
      this.on.react(this.toolItem, sign);
      this.openEmoji(false);
      this.tools.closest("li")?.focus({ preventScroll: true });
    }));
    this.emojiRow = make("span", "emoji", ...emoji);
    this.reactTool = button("tool", "React", icon("smile"), () => this.openEmoji(!this.tools.classList.contains("open")));
    this.reactTool.setAttribute("aria-expanded", "false");
    this.ownTools = [tool("Edit", "edit", "edit"), tool("Remove", "trash", "remove")];
    const tools = make("div", "tools", this.emojiRow, this.reactTool, this.isThread ? null : tool("Reply", "reply", "reply"),
      this.isThread ? null : tool("Open thread", "thread", "thread"), ...this.ownTools);
    tools.setAttribute("role", "toolbar");
    tools.setAttribute("aria-label", "Message actions");
    return tools;
  }

  openEmoji(isOpen) {
    this.tools.classList.toggle("open", isOpen);
    this.reactTool.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.emojiRow.firstElementChild.focus();
  }

  itemOf(element) {
    const item = this.drawn.get(Number(element?.dataset.key))?.item;
    return item?.revision === undefined ? null : item;
  }

  showTools(target) {
    const element = target.closest?.("li");
    if (!element || this.tools.parentElement === element) return;
    // Focus inside another message's tools stays where it is.
    if (this.tools.contains(document.activeElement) && !element.contains(document.activeElement)) return;
    const item = this.itemOf(element);
    this.openEmojiQuietly();
    this.tools.remove();
    if (!item || item.type !== "message" || item.isRemoved || !this.conversation.mayWrite) return;
    this.toolItem = item;
    for (const tool of this.ownTools) tool.hidden = item.by !== this.me;
    element.append(this.tools);
  }

  openEmojiQuietly() {
    this.tools.classList.remove("open");
    this.reactTool.setAttribute("aria-expanded", "false");
  }

  // With a message in focus: arrows move on, letters act.
  key(event) {
    const element = event.target;
    if (event.key === "Escape" && this.tools.contains(element)) {
      event.stopPropagation(); // a thread stays open
      this.openEmojiQuietly();
      element.closest("li")?.focus();
      return;
    }
    if (element.tagName !== "LI" || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = { ArrowUp: element.previousElementSibling, ArrowDown: element.nextElementSibling }[event.key];
    const item = this.itemOf(element);
    const mayAct = item?.type === "message" && !item.isRemoved && this.conversation.mayWrite;
    const isMine = item?.by === this.me;
    const act = mayAct && { r: !this.isThread && "reply", t: !this.isThread && "thread", e: isMine && "edit", Delete: isMine && "remove" }[event.key];
    if (next) next.focus();
    else if (event.key === "+" && mayAct) this.openEmoji(true);
    else if (act && this.on[act]) this.on[act](item);
    else return;
    event.preventDefault();
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
}

// Signs that turn the direction of what follows, and those that end what they began.
const TURNS = /[\u202a\u202b\u202d\u202e]/g;
const ISOLATES = /[\u2066-\u2068]/g;

// What ends all that a text begins, so that nothing behind it is turned.
function endOfTurns(text) {
  const turns = "\u202c".repeat(text.match(TURNS)?.length ?? 0);
  return turns + `\u2069${turns}`.repeat(text.match(ISOLATES)?.length ?? 0);
}

// Text with its web addresses made into links.
function linked(text) {
  const parts = splitAddresses(text).map((part) => {
    if (!part.isAddress) return part.text;
    const link = make("a", "", part.text);
    link.href = part.text;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return link;
  });
  const end = endOfTurns(text);
  return end === "" ? parts : [...parts, end];
}

export const describe = (conversation, item) => `${conversation.nameOf(item.by) || bareId(item.by)}: ${seen(item.text)}`;
