// Where a person writes: new messages, replies, edits, and the few slash commands.

import { byId, say } from "./dom.js";

export class Composer {
  // `on` has: post(text, kind, replyTo), edit(item, text), nick(name), editLast(), list().
  constructor(on) {
    this.on = on;
    this.mode = null; // { type: "reply" | "edit", item }
    this.drafts = new Map(); // room -> text
    this.room = null;
    this.text = byId("text");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    byId("context-cancel").addEventListener("click", () => this.cancel());
    this.text.addEventListener("input", () => this.fit());
    this.text.addEventListener("keydown", (event) => this.key(event));
  }

  show(room) {
    if (this.room !== null && this.mode?.type !== "edit") this.drafts.set(this.room, this.text.value);
    this.setMode(null, "");
    this.room = room;
    this.fill(this.drafts.get(room) ?? "");
    this.problem("");
  }

  reply(item, label) {
    if (this.mode?.type === "edit") this.fill("");
    this.setMode({ type: "reply", item }, `Reply to ${label}`);
    this.text.focus();
  }

  edit(item) {
    this.setMode({ type: "edit", item }, "Edit your message");
    this.fill(item.text);
    this.text.focus();
    this.text.setSelectionRange(item.text.length, item.text.length);
  }

  cancel() {
    if (this.mode?.type === "edit") this.fill("");
    this.setMode(null, "");
    this.text.focus();
  }

  problem(text) {
    say(byId("composer-error"), text);
  }

  key(event) {
    if (event.isComposing) return; // Enter ends an input method's word, not the message
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape" && this.mode) {
      event.preventDefault();
      this.cancel();
    } else if (event.key === "ArrowUp" && this.text.value === "") {
      event.preventDefault();
      if (event.altKey) this.on.list();
      else this.on.editLast();
    }
  }

  submit() {
    const text = this.text.value.replace(/\s+$/, "");
    if (text.trim() === "") return;
    this.problem("");
    const mode = this.mode;
    const [, command, rest] = text.match(/^\/(me|nick)(?:\s+([\s\S]*))?$/) ?? [];
    if (mode?.type === "edit") {
      if (text !== mode.item.text) this.on.edit(mode.item, text);
    } else if (command && !rest) {
      return this.problem(command === "me" ? "Say what you do: /me waves" : "Say the new name: /nick Alice B.");
    } else if (command === "nick") {
      this.on.nick(rest);
    } else {
      this.on.post(rest ?? text, command ? "action" : "text", mode?.item.revision ?? null);
    }
    this.setMode(null, "");
    this.fill("");
    return undefined;
  }

  setMode(mode, label) {
    this.mode = mode;
    byId("context-text").textContent = label;
    byId("context").hidden = !mode;
    byId("send").textContent = mode?.type === "edit" ? "Save" : "Send";
  }

  fill(text) {
    this.text.value = text;
    this.fit();
  }

  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, 180)}px`;
  }
}
