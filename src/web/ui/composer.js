// Where a person writes: new messages, replies, edits, and the few slash commands.

import { byId, recall, remember, say } from "./dom.js";
import { icon, placeIcons } from "./icons.js";
import { describe } from "./message-list.js";

const HEIGHT_MAX_PX = 180;
/** Where one writes by a keyboard on the screen, which has no Shift+Enter: Enter begins a line there, and the button sends. */
const isTouched = window.matchMedia("(pointer: coarse)");
const REPLACED = "The room's history was replaced, and the message that this is about is not in it any more.";
const REMOVED = "The message that this is about was removed meanwhile.";

export class Composer {
  /**
   * @param {HTMLElement} place where the form is put
   * @param {object} on `post(text, kind, replyTo)`, `edit(revision, text)`, which reject with what is not
   *   taken, and where they make sense `nick(name)`, which rejects with what was refused, `editLast()`, `list()`,
   *   `writing()`, `silent()`
   * @param {string} label
   * @param {string} keys what the keyboard does from here
   */
  constructor(place, on, label, keys) {
    this.on = on;
    // { type: "reply" | "edit", revision, epoch }: which message of which history it is about, and `isKept` for
    // one of a draft that was not looked up since.
    this.mode = null;
    this.before = null; // what an edit has put aside: { mode, text }
    this.isDue = false; // it was asked to send a draft whose message could not be looked up yet
    this.draftKey = null;
    this.form = byId("composer-template").content.firstElementChild.cloneNode(true);
    this.text = this.form.querySelector("textarea");
    this.context = this.form.querySelector(".context");
    this.error = this.form.querySelector(".problem");
    this.sendButton = this.form.querySelector(".send");
    this.text.setAttribute("aria-label", label);
    this.text.title = keys;
    placeIcons(this.form);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.context.querySelector("button").addEventListener("click", () => this.cancel());
    this.text.addEventListener("input", () => this.changed());
    this.text.addEventListener("keydown", (event) => this.key(event));
    place.append(this.form);
  }

  /**
   * Shows the draft of this place; drafts outlive a reload, with what they answer or edit.
   * @param {(revision: number) => object | undefined} [find] a message as it is held
   */
  show(draftKey, placeholder, conversation, find = (revision) => conversation.window.byRevision.get(revision)) {
    this.draftKey = null;
    this.isDue = false;
    Object.assign(this, { conversation, find });
    const { text, mode, before } = draftOf(recall("sessionStorage", draftKey) ?? "");
    this.before = before;
    this.setMode(mode);
    this.fill(text);
    this.draftKey = draftKey;
    this.text.placeholder = placeholder;
    this.problem("");
    this.confirm();
  }

  /** Looks whether what a reply or an edit is about is there still, as far as that is known by now. */
  confirm() {
    const { mode, conversation: { epoch } } = this;
    if (!mode || epoch === null) return undefined;
    if ([mode, this.before?.mode].some((one) => one && one.epoch !== epoch)) return this.loseMode(REPLACED);
    const item = this.find(mode.revision);
    if (item && mode.isKept) {
      // While it is being written, sending tells.
      if (item.isRemoved) return this.loseMode(REMOVED);
      mode.isKept = false;
      this.setMode(mode);
    }
    if (this.isDue && this.conversation.window.isLive) this.submit();
    return undefined;
  }

  get isHidden() {
    return this.form.hidden;
  }

  set isHidden(isHidden) {
    const isNew = this.form.hidden && !isHidden;
    this.form.hidden = isHidden;
    if (isNew) this.fit(); // what is not shown has no height
  }

  focus() {
    this.text.focus();
  }

  reply(item) {
    this.leaveEdit();
    this.setMode(this.about("reply", item));
    this.keepDraft();
    this.focus();
  }

  /** Edits a message, from its last wording on; what was being written meanwhile is put aside and comes back. */
  edit(item, text = this.conversation.wordsOf(item)) {
    if (this.mode?.type !== "edit") this.before = { mode: this.mode, text: this.text.value };
    this.setMode(this.about("edit", item));
    this.fill(text);
    this.keepDraft();
    this.focus();
    this.text.setSelectionRange(text.length, text.length);
  }

  about(type, { revision }) {
    this.isDue = false;
    return { type, revision, epoch: this.conversation.epoch };
  }

  /** Takes words back that were not sent, before what is being written now. */
  take(text, kind) {
    this.leaveEdit();
    const words = kind === "action" ? `/me ${text}` : text;
    this.fill([words, this.text.value].filter(Boolean).join("\n"));
    this.keepDraft();
    this.focus();
  }

  cancel() {
    this.isDue = false;
    if (this.mode?.type === "edit") this.leaveEdit();
    else this.setMode(null);
    this.keepDraft();
    this.focus();
  }

  leaveEdit() {
    if (this.mode?.type !== "edit") return;
    this.isDue = false;
    const { mode, text } = this.before ?? { mode: null, text: "" };
    this.before = null;
    this.setMode(mode);
    this.fill(text);
    this.keepDraft();
    this.confirm();
  }

  // What a reply or an edit is about is there no more: its words stay, to be sent as they are or not.
  loseMode(why) {
    const words = [this.before?.text, this.text.value].filter(Boolean).join("\n");
    this.before = null;
    this.setMode(null);
    this.fill(words);
    this.keepDraft();
    this.problem(why);
  }

  problem(text) {
    say(this.error, text);
  }

  key(event) {
    if (event.isComposing) return; // Enter ends an input method's word, not the message
    const sends = event.ctrlKey || event.metaKey || !(event.shiftKey || isTouched.matches);
    if (event.key === "Enter" && sends) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape" && this.mode) {
      event.preventDefault();
      event.stopPropagation();
      this.cancel();
    } else if (event.key === "ArrowUp" && this.text.value === "" && !event.altKey) {
      event.preventDefault();
      this.on.editLast?.();
    } else if (event.key === "ArrowUp" && event.shiftKey && event.altKey) {
      event.preventDefault();
      this.on.list?.();
    }
  }

  changed() {
    this.fit();
    const isEmpty = this.text.value.trim() === "";
    this.keepDraft();
    if (isEmpty) this.on.silent?.();
    else if (this.mode?.type !== "edit") this.on.writing?.();
  }

  keepDraft() {
    if (!this.draftKey) return;
    const { text: { value: text }, mode, before } = this;
    remember("sessionStorage", this.draftKey, text || mode ? JSON.stringify({ text, mode, before }) : "");
  }

  // What was written stays until it is taken.
  async submit() {
    const text = this.text.value.replace(/\s+$/, "");
    if (text.trim() === "") return;
    this.problem("");
    this.isDue = false;
    const { mode, draftKey } = this;
    this.confirm();
    if (this.mode !== mode) return; // it says so
    this.isDue = mode?.isKept === true && !this.conversation.window.isLive;
    if (this.isDue) return;
    const [, command, rest] = text.match(/^\/(me|nick)(?:\s+([\s\S]*))?$/) ?? [];
    try {
      if (mode?.type === "edit") {
        const item = this.find(mode.revision);
        if (!item || text !== this.conversation.wordsOf(item)) await this.on.edit(mode.revision, text);
      } else if (command && !rest) {
        this.problem(command === "me" ? "Say what you do: /me waves" : "Say the new name: /nick Alice B.");
        return;
      } else if (command === "nick") {
        this.on.nick?.(rest).catch((error) => this.giveBack(text, error, draftKey));
      } else {
        await this.on.post(rest ?? text, command ? "action" : "text", mode?.revision ?? null);
      }
    } catch (error) {
      if (draftKey === this.draftKey) this.problem(notTaken(error));
      return;
    }
    if (draftKey !== this.draftKey) return; // another place is shown since
    if (mode?.type === "edit") {
      this.leaveEdit();
      return;
    }
    this.setMode(null);
    this.fill("");
    this.keepDraft();
  }

  // A command that was refused: its words come back, unless others stand in their place by now.
  giveBack(text, error, draftKey) {
    if (draftKey !== this.draftKey) {
      if (!recall("sessionStorage", draftKey)) remember("sessionStorage", draftKey, JSON.stringify({ text, mode: null, before: null }));
      return;
    }
    const isFree = this.text.value === "" && !this.mode;
    if (isFree) this.fill(text);
    this.keepDraft();
    this.problem(`${isFree ? "Not done" : `“${text}” was not done`}: ${error.message}.`);
  }

  setMode(mode) {
    if (!mode) this.isDue = false;
    this.mode = mode;
    this.context.querySelector("span").textContent = mode ? this.label(mode) : "";
    this.context.hidden = !mode;
    this.sendButton.setAttribute("aria-label", mode?.type === "edit" ? "Save" : "Send");
    this.sendButton.replaceChildren(icon(mode?.type === "edit" ? "check" : "send"));
  }

  label({ type, revision }) {
    if (type === "edit") return "Edit your message";
    const item = this.find(revision);
    return `Reply to ${item ? describe(this.conversation, item) : "an earlier message"}`;
  }

  fill(text) {
    this.text.value = text;
    this.fit();
  }

  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, HEIGHT_MAX_PX)}px`;
  }
}

// A draft as it was kept; what is no draft is the words themselves.
function draftOf(stored) {
  const kept = (mode) => mode && { ...mode, isKept: true };
  try {
    const { text, mode = null, before = null } = JSON.parse(stored);
    if (typeof text === "string") return { text, mode: kept(mode), before: before && { text: before.text, mode: kept(before.mode) } };
  } catch { /* then it is words */ }
  return { text: stored, mode: null, before: null };
}

function notTaken({ code, message }) {
  if (code === "too_big") return `This is too long to be sent: ${message}. Shorten it, or send it in parts.`;
  return `Not sent: ${message}.`;
}
