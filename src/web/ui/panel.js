// What stands beside the conversation: who is in the room, or one thread.

import { Composer } from "./composer.js";
import { bareId, byId, button, make, paintAvatar } from "./dom.js";
import { MessageList } from "./message-list.js";
import { Window } from "./window.js";

const THREAD_PAGES_MAX = 10;
const PAGE_LEN = 200;

export class Panel {
  /** @param {object} on those of a `MessageList`, and `leave()`, `invite(member)`, `saveEdit(item, text)` */
  constructor(on) {
    this.on = on;
    this.kind = null; // "members" | "thread"
    this.conversation = null;
    this.root = byId("panel");
    this.body = byId("panel-body");
    this.foot = byId("panel-foot");
    byId("panel-close").addEventListener("click", () => this.close());
    this.root.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    this.inviteForm = this.makeInvite();
    this.threadList = make("ol", "timeline");
    this.threadList.setAttribute("aria-label", "Thread");
    this.composer = new Composer(this.foot, {
      post: (text, kind) => this.conversation.post(text, kind, this.threadRoot),
      edit: (item, text) => on.saveEdit(item, text),
      writing: () => this.conversation.room.write(),
      silent: () => this.conversation.room.stopWriting(),
    }, "Reply in the thread");
    this.messages = new MessageList(this.threadList, { ...on, edit: (item) => this.composer.edit(item) }, { isThread: true });
  }

  get isOpen() {
    return this.kind !== null;
  }

  close() {
    if (!this.isOpen) return;
    this.kind = null;
    this.root.hidden = true;
    document.body.classList.remove("panel-open");
    byId("members-open").setAttribute("aria-expanded", "false");
    if (this.opener?.isConnected) this.opener.focus();
    else byId("composer-place").querySelector("textarea")?.focus();
  }

  open(kind, conversation, title) {
    if (!this.isOpen) this.opener = document.activeElement;
    this.kind = kind;
    this.conversation = conversation;
    this.root.hidden = false;
    document.body.classList.add("panel-open");
    byId("panel-title").textContent = title;
    this.foot.hidden = kind !== "thread" || !conversation.isMember;
    byId("members-open").setAttribute("aria-expanded", String(kind === "members"));
  }

  toggleMembers(conversation) {
    if (this.kind === "members") return this.close();
    this.open("members", conversation, "Members");
    this.draw();
    byId("panel-close").focus();
    return undefined;
  }

  async openThread(conversation, item) {
    this.threadRoot = item.threadRoot ?? item.revision;
    this.open("thread", conversation, "Thread");
    this.body.replaceChildren(this.threadList);
    this.messages.draw(conversation, []);
    this.composer.show(`draft:${conversation.me}:${conversation.id}:${this.threadRoot}`, "Reply in the thread");
    this.thread = null;
    this.draw();
    if (!conversation.window.byRevision.has(this.threadRoot)) await this.loadThread(conversation, this.threadRoot);
    if (!this.foot.hidden) this.composer.focus();
  }

  // A thread that began before what is held: read from its first message on, as far as is sensible.
  async loadThread(conversation, root) {
    const window = new Window(conversation.id);
    window.names = conversation.window.names;
    try {
      for (let page = 0, next = root; page < THREAD_PAGES_MAX; page += 1) {
        const { events } = await conversation.room.history({ before: next + PAGE_LEN, limit: PAGE_LEN });
        const fresh = events.filter(({ revision }) => revision >= next);
        for (const event of fresh) window.append(event, true);
        next = (fresh.at(-1)?.revision ?? next) + 1;
        if (fresh.length === 0 || next > (conversation.room.head ?? 0)) break;
      }
    } catch {
      return; // the part that is held stays on show
    }
    if (this.kind !== "thread" || this.threadRoot !== root || this.conversation !== conversation) return;
    this.thread = window.thread(root).filter(({ revision }) => revision < (conversation.window.oldest ?? Infinity));
    this.draw();
  }

  draw() {
    if (this.kind === "members") this.drawMembers();
    if (this.kind === "thread") this.drawThread();
  }

  drawThread() {
    const { window, onTheirWay } = this.conversation;
    const mine = onTheirWay.filter(({ threadRoot }) => threadRoot === this.threadRoot);
    const items = [...(this.thread ?? []), ...window.thread(this.threadRoot), ...mine];
    const isAtEnd = this.body.scrollHeight - this.body.scrollTop - this.body.clientHeight < 60;
    this.messages.draw(this.conversation, items);
    this.foot.hidden = !this.conversation.isMember;
    if (isAtEnd) this.body.scrollTop = this.body.scrollHeight;
  }

  makeInvite() {
    const input = make("input");
    input.setAttribute("aria-label", "Whom to invite");
    input.placeholder = "Invite someone by name";
    input.autocapitalize = "off";
    input.spellcheck = false;
    const note = make("p", "note");
    note.setAttribute("role", "status");
    const form = make("form", "invite", input, make("button", "", "Invite"), note);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const member = input.value.trim();
      note.textContent = member === "" ? "" : await this.on.invite(member);
      if (note.textContent.startsWith("Invited")) input.value = "";
    });
    return form;
  }

  drawMembers() {
    const { window, room, me } = this.conversation;
    const here = new Set(room.presence.members);
    const sorted = [...window.members].sort(([one, oneName], [other, otherName]) =>
      Number(here.has(other)) - Number(here.has(one)) || oneName.localeCompare(otherName));
    const entry = ([member, name]) => {
      const avatar = make("span", "avatar");
      paintAvatar(avatar, member, name);
      avatar.setAttribute("aria-hidden", "true");
      const isHere = here.has(member);
      const dot = make("span", isHere ? "dot here" : "dot away");
      const about = [member === me && "you", bareId(member) !== name && bareId(member), member.startsWith("persona:") && "AI"].filter(Boolean).join(" · ");
      const item = make("li", "member", make("span", "avatar-place", avatar, dot),
        make("span", "member-name", name), make("span", "dim", about), make("span", "hidden", isHere ? ", here now" : ", away"));
      item.title = member;
      return item;
    };
    const parts = [];
    const [present, absent] = [sorted.filter(([member]) => here.has(member)), sorted.filter(([member]) => !here.has(member))];
    for (const [title, members] of [["Here now", present], [here.size > 0 ? "Away" : "", absent]]) {
      if (members.length === 0) continue;
      if (title) parts.push(make("h3", "", `${title} · ${members.length}`));
      parts.push(make("ul", "member-list", ...members.map(entry)));
    }
    const onlookers = [...here].filter((member) => !window.members.has(member));
    if (onlookers.length > 0) parts.push(make("p", "note", `Reading along: ${onlookers.map(bareId).join(", ")}`));
    const more = room.presence.count - here.size;
    if (more > 0) parts.push(make("p", "note", `and ${more} more are here`));
    if (this.conversation.isMember) parts.push(this.inviteForm, button("quiet leave", "Leave this room", "Leave this room", () => this.on.leave()));
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.body.replaceChildren(...parts);
    if (focused?.isConnected) focused.focus();
  }
}
