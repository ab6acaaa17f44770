// Where a person writes: new messages, replies, edits, and the few slash commands.

import { byId, recall, remember, say } from "./dom.js";
import { icon, placeIcons } from "./icons.js";

const HEIGHT_MAX_PX = 180;

export class Composer {
  /**
   * @param {HTMLElement} place where the form is put
   * @param {object} on `post(text, kind, replyTo)`, `edit(item, text)`, which reject with what is not
   *   taken, and where they make sense `nick(name)`, `editLast()`, `list()`, `writing()`, `silent()`
   * @param {string} label
   */
  constructor(place, on, label) {
    this.on = on;
    this.mode = null; // { type: "reply" | "edit", item, label }
    this.before = null; // what an edit has put aside: { mode, text }
    this.draftKey = null;
    this.form = byId("composer-template").content.firstElementChild.cloneNode(true);
    this.text = this.form.querySelector("textarea");
    this.context = this.form.querySelector(".context");
    this.error = this.form.querySelector(".problem");
    this.sendButton = this.form.querySelector(".send");
    this.text.setAttribute("aria-label", label);
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

  /** Shows the draft of this place; drafts outlive a reload. */
  show(draftKey, placeholder) {
    this.draftKey = null;
    this.before = null;
    this.setMode(null);
    this.fill(recall("sessionStorage", draftKey) ?? "");
    this.draftKey = draftKey;
    this.text.placeholder = placeholder;
    this.problem("");
  }

  set isHidden(isHidden) {
    const isNew = this.form.hidden && !isHidden;
    this.form.hidden = isHidden;
    if (isNew) this.fit(); // what is not shown has no height
  }

  focus() {
    this.text.focus();
  }

  reply(item, label) {
    this.leaveEdit();
    this.setMode({ type: "reply", item, label: `Reply to ${label}` });
    this.focus();
  }

  /** Edits a message; what was being written meanwhile is put aside and comes back. */
  edit(item, text = item.text) {
    if (this.mode?.type !== "edit") this.before = { mode: this.mode, text: this.text.value };
    this.setMode({ type: "edit", item, label: "Edit your message" });
    this.fill(text);
    this.focus();
    this.text.setSelectionRange(text.length, text.length);
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
    if (this.mode?.type === "edit") this.leaveEdit();
    else this.setMode(null);
    this.focus();
  }

  leaveEdit() {
    if (this.mode?.type !== "edit") return;
    const { mode, text } = this.before ?? { mode: null, text: "" };
    this.before = null;
    this.setMode(mode);
    this.fill(text);
  }

  /** What a reply or an edit is about is there no more: its words stay, to be sent as they are or not. */
  loseMode() {
    if (!this.mode) return;
    const words = [this.before?.text, this.text.value].filter(Boolean).join("\n");
    this.before = null;
    this.setMode(null);
    this.fill(words);
    this.keepDraft();
    this.problem("The room's history was replaced, and the message that this is about is not in it any more.");
  }

  problem(text) {
    say(this.error, text);
  }

  key(event) {
    if (event.isComposing) return; // Enter ends an input method's word, not the message
    if (event.key === "Enter" && !event.shiftKey) {
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
    if (this.draftKey && this.mode?.type !== "edit") remember("sessionStorage", this.draftKey, this.text.value);
  }

  // What was written stays until it is taken.
  async submit() {
    const text = this.text.value.replace(/\s+$/, "");
    if (text.trim() === "") return;
    this.problem("");
    const { mode, draftKey } = this;
    const [, command, rest] = text.match(/^\/(me|nick)(?:\s+([\s\S]*))?$/) ?? [];
    try {
      if (mode?.type === "edit") {
        if (text !== mode.item.text) await this.on.edit(mode.item, text);
      } else if (command && !rest) {
        this.problem(command === "me" ? "Say what you do: /me waves" : "Say the new name: /nick Alice B.");
        return;
      } else if (command === "nick") {
        this.on.nick?.(rest);
      } else {
        await this.on.post(rest ?? text, command ? "action" : "text", mode?.item.revision ?? null);
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

  setMode(mode) {
    this.mode = mode;
    this.context.querySelector("span").textContent = mode?.label ?? "";
    this.context.hidden = !mode;
    this.sendButton.setAttribute("aria-label", mode?.type === "edit" ? "Save" : "Send");
    this.sendButton.replaceChildren(icon(mode?.type === "edit" ? "check" : "send"));
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

function notTaken({ code, message }) {
  if (code === "too_big") return `This is too long to be sent: ${message}. Shorten it, or send it in parts.`;
  return `Not sent: ${message}.`;
}
