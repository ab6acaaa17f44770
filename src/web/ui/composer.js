// Where a person writes: new messages, replies, edits, and the few slash commands.

import { byId, recall, remember, say } from "./dom.js";
import { icon, placeIcons } from "./icons.js";

const HEIGHT_MAX_PX = 180;

export class Composer {
  /**
   * @param {HTMLElement} place where the form is put
   * @param {object} on `post(text, kind, replyTo)`, `edit(item, text)`, and where they make sense
   *   `nick(name)`, `editLast()`, `list()`, `writing()`, `silent()`
   * @param {string} label
   */
  constructor(place, on, label) {
    this.on = on;
    this.mode = null; // { type: "reply" | "edit", item }
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
    this.setMode(null, "");
    this.fill(recall("sessionStorage", draftKey) ?? "");
    this.draftKey = draftKey;
    this.text.placeholder = placeholder;
    this.problem("");
  }

  set isHidden(isHidden) {
    this.form.hidden = isHidden;
  }

  focus() {
    this.text.focus();
  }

  reply(item, label) {
    if (this.mode?.type === "edit") this.fill("");
    this.setMode({ type: "reply", item }, `Reply to ${label}`);
    this.focus();
  }

  edit(item) {
    this.setMode({ type: "edit", item }, "Edit your message");
    this.fill(item.text);
    this.focus();
    this.text.setSelectionRange(item.text.length, item.text.length);
  }

  cancel() {
    if (this.mode?.type === "edit") this.fill("");
    this.setMode(null, "");
    this.focus();
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
    if (this.draftKey && this.mode?.type !== "edit") remember("sessionStorage", this.draftKey, this.text.value);
    if (isEmpty) this.on.silent?.();
    else if (this.mode?.type !== "edit") this.on.writing?.();
  }

  submit() {
    const text = this.text.value.replace(/\s+$/, "");
    if (text.trim() === "") return;
    this.problem("");
    const { mode } = this;
    const [, command, rest] = text.match(/^\/(me|nick)(?:\s+([\s\S]*))?$/) ?? [];
    if (mode?.type === "edit") {
      if (text !== mode.item.text) this.on.edit(mode.item, text);
    } else if (command && !rest) {
      this.problem(command === "me" ? "Say what you do: /me waves" : "Say the new name: /nick Alice B.");
      return;
    } else if (command === "nick") {
      this.on.nick?.(rest);
    } else {
      this.on.post(rest ?? text, command ? "action" : "text", mode?.item.revision ?? null);
    }
    this.setMode(null, "");
    this.fill("");
    if (this.draftKey) remember("sessionStorage", this.draftKey, "");
  }

  setMode(mode, label) {
    this.mode = mode;
    this.context.querySelector("span").textContent = label;
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
