// What stands beside the conversation: who is in the room, or one thread.

import { Composer } from "./composer.js";
import { byId, make, say, shield } from "./dom.js";
import { Members } from "./members.js";
import { MessageList } from "./message-list.js";
import { Thread } from "./thread.js";

const KEYS = "Shift+Alt+↑ goes to the messages of the thread: there ↑ and ↓ move, + reacts, E edits, Delete removes";

export class Panel {
  /**
   * @param {object} on those of a `MessageList`, and `leave()`, `invite(member)`, `saveEdit(revision, text)`,
   *   `putBack(item, composer)`
   */
  constructor(on) {
    this.on = on;
    this.kind = null; // "members" | "thread"
    this.conversation = null;
    this.root = byId("panel");
    this.body = byId("panel-body");
    this.foot = byId("panel-foot");
    byId("panel-close").addEventListener("click", () => this.close());
    this.root.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    this.members = new Members(on);
    this.threadNote = make("p", "note");
    this.thread = null;
    this.threadList = make("ol", "timeline");
    this.threadList.setAttribute("aria-label", "Thread");
    this.composer = new Composer(this.foot, {
      post: (text, kind) => this.conversation.post(text, kind, this.threadRoot),
      edit: (revision, text) => on.saveEdit(revision, text),
      writing: () => this.conversation.room.write(),
      silent: () => this.conversation.room.stopWriting(),
      nick: (name) => this.conversation.rename(name),
      list: () => this.messages.focusLast(),
      editLast: () => {
        const last = this.thread.items.findLast(({ by, isRemoved }) => by === this.conversation.me && !isRemoved);
        if (last) this.composer.edit(last);
      },
    }, "Reply in the thread", KEYS);
    const calls = { ...on, edit: (item) => this.composer.edit(item), putBack: (item) => on.putBack(item, this.composer) };
    this.messages = new MessageList(this.threadList, calls, { isThread: true });
  }

  get isOpen() {
    return this.kind !== null;
  }

  close() {
    if (!this.isOpen) return;
    this.kind = null;
    this.letGo();
    this.root.hidden = true;
    document.body.classList.remove("panel-open");
    shield();
    byId("members-open").setAttribute("aria-expanded", "false");
    if (this.opener?.isConnected) this.opener.focus();
    else byId("composer-place").querySelector("textarea")?.focus();
  }

  open(kind, conversation, title) {
    if (!this.isOpen) this.opener = document.activeElement;
    this.letGo();
    this.kind = kind;
    this.conversation = conversation;
    // What is of a history that is gone is no thread any more.
    this.off = conversation.on("restarted", (isAnother) => isAnother && this.kind === "thread" && this.close());
    this.root.hidden = false;
    document.body.classList.add("panel-open");
    shield();
    byId("panel-title").textContent = title;
    this.foot.hidden = this.composer.isHidden = kind !== "thread" || !conversation.mayWrite;
    byId("members-open").setAttribute("aria-expanded", String(kind === "members"));
  }

  letGo() {
    this.off?.();
    this.thread?.close();
    this.thread = null;
  }

  toggleMembers(conversation) {
    if (this.kind === "members") return this.close();
    this.open("members", conversation, "Members");
    this.draw();
    byId("panel-close").focus();
    return undefined;
  }

  openThread(conversation, item) {
    this.threadRoot = item.threadRoot ?? item.revision;
    this.open("thread", conversation, "Thread");
    this.body.replaceChildren(this.threadNote, this.threadList);
    this.messages.draw(conversation, []);
    this.composer.show(`draft:${conversation.me}:${conversation.id}:${this.threadRoot}`, "Reply in the thread",
      conversation, (revision) => this.thread?.window.byRevision.get(revision));
    this.thread = new Thread(conversation, this.threadRoot, () => this.draw());
    this.draw();
    if (this.foot.hidden) byId("panel-close").focus();
    else this.composer.focus();
  }

  draw() {
    if (this.kind === "members") this.drawMembers();
    if (this.kind === "thread") this.drawThread();
  }

  drawThread() {
    const { outgoing, mayWrite } = this.conversation;
    const mine = outgoing.filter(({ threadRoot }) => threadRoot === this.threadRoot);
    const isAtEnd = this.body.scrollHeight - this.body.scrollTop - this.body.clientHeight < 60;
    say(this.threadNote, this.thread.hasFailed ? "The rest of this thread is not to be had now." : "");
    this.messages.draw(this.conversation, [...this.thread.items, ...mine]);
    this.composer.confirm();
    this.foot.hidden = this.composer.isHidden = !mayWrite;
    if (isAtEnd) this.body.scrollTop = this.body.scrollHeight;
  }

  drawMembers() {
    this.members.draw(this.conversation);
    if (this.members.element.parentElement !== this.body) this.body.replaceChildren(this.members.element);
  }
}
