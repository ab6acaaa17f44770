// Who is in a room and who of them is here; a way to invite others, and to leave.

import { arrange, bareId, button, make, paintAvatar, say } from "./dom.js";

const order = new Intl.Collator();

export class Members {
  /** @param {object} on `leave()`, and `invite(member)`, which resolves with what to say of it */
  constructor(on) {
    this.on = on;
    this.entries = new Map(); // member -> { element, signature }
    this.drawn = null; // what was drawn last: nothing is done while that holds
    this.lists = [this.makeList(), this.makeList()];
    this.onlookers = make("p", "note");
    this.more = make("p", "note");
    this.inviteForm = this.makeInvite();
    this.leave = button("quiet leave", "Leave this room", "Leave this room", () => on.leave());
    this.element = make("div", "", ...this.lists.flatMap(({ title, list }) => [title, list]), this.onlookers, this.more, this.inviteForm, this.leave);
  }

  makeList() {
    return { title: make("h3"), list: make("ul", "member-list") };
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

  draw({ id, window, room, me, isMember }) {
    const { presence } = room;
    const now = [id, window.version, presence, isMember];
    if (this.drawn?.every((one, index) => one === now[index])) return;
    this.drawn = now;
    const here = new Set(presence.members);
    const sorted = [...window.members].sort(([, one], [, other]) => order.compare(one, other));
    const parts = [sorted.filter(([member]) => here.has(member)), sorted.filter(([member]) => !here.has(member))];
    for (const [index, members] of parts.entries()) {
      const { title, list } = this.lists[index];
      const words = index === 0 ? "Here now" : here.size > 0 ? "Away" : "";
      say(title, members.length > 0 && words ? `${words} · ${members.length}` : "");
      arrange(list, members.map(([member, name]) => this.entry(member, name, index === 0, member === me)));
    }
    for (const member of this.entries.keys()) if (!window.members.has(member)) this.entries.delete(member);
    const onlookers = [...here].filter((member) => !window.members.has(member));
    say(this.onlookers, onlookers.length > 0 ? `Reading along: ${onlookers.map(bareId).join(", ")}` : "");
    const more = presence.count - here.size;
    say(this.more, more > 0 ? `and ${more} more are here` : "");
    this.inviteForm.hidden = this.leave.hidden = !isMember;
  }

  entry(member, name, isHere, isMe) {
    const signature = `${isHere} ${isMe} ${name}`;
    const known = this.entries.get(member);
    if (known?.signature === signature) return known.element;
    const avatar = make("span", "avatar");
    paintAvatar(avatar, member, name);
    avatar.setAttribute("aria-hidden", "true");
    const dot = make("span", isHere ? "dot here" : "dot away");
    const about = [isMe && "you", bareId(member) !== name && bareId(member), member.startsWith("persona:") && "AI"].filter(Boolean).join(" · ");
    const element = known?.element ?? make("li", "member");
    element.title = member;
    element.replaceChildren(make("span", "avatar-place", avatar, dot),
      make("span", "member-name", name), make("span", "dim", about), make("span", "hidden", isHere ? ", here now" : ", away"));
    this.entries.set(member, { element, signature });
    return element;
  }
}
