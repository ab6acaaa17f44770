// Rooms that ask for this person: the server tells which, and their own stream what has changed. Of that
// only the latest page comes, and an invitation may be older.

import { Rejected } from "/client.js";
import { byId, button, make, say } from "./dom.js";

/** The list is asked for so often where it is not to be had now, and after so long. */
const TRIES_MAX = 20;
const AGAIN_MS = 2_000;

export class Invitations {
  /** @param {import("/client.js").Client} client @param {(room: string) => void} go shows a room */
  constructor(client, go) {
    Object.assign(this, { client, go });
    this.listed = []; // as the server says: { room, title, by }
    this.told = new Map(); // room -> the invitation, or null once it has ended, by events since the last reset
    client.me.on("reset", () => {
      this.listed = [];
      this.told.clear();
      this.draw();
      this.load();
    });
    client.me.on("event", ({ name, data }) => {
      if (name !== "InvitationReceived" && name !== "InvitationEnded") return;
      this.told.set(data.room, name === "InvitationReceived" ? data : null);
      this.draw();
    });
  }

  async load(tries = 0) {
    clearTimeout(this.timer);
    const asked = (this.asked = Symbol("asked"));
    try {
      const { invitations } = await this.client.api.me({ limit: 1 });
      if (asked !== this.asked) return;
      this.listed = invitations;
      this.draw();
    } catch ({ status, afterMs }) {
      const comesLater = asked === this.asked && (status === undefined || status >= 500);
      if (comesLater && tries < TRIES_MAX) this.timer = setTimeout(() => this.load(tries + 1), afterMs ?? AGAIN_MS);
    }
  }

  // What the events tell of a room is newer than the list, or the same.
  draw() {
    const open = new Map(this.listed.map((invitation) => [invitation.room, invitation]));
    for (const [room, invitation] of this.told) {
      if (invitation) open.set(room, invitation);
      else open.delete(room);
    }
    byId("invitations").replaceChildren(...[...open.values()].map((invitation) => this.entry(invitation)));
  }

  entry({ room, title, by }) {
    const problem = make("p", "problem");
    problem.hidden = true;
    const answer = (label, className, act) => {
      const element = button(className, `${label} ${title}`, label, async () => {
        element.disabled = true;
        say(problem, "");
        try {
          await act();
        } catch (error) {
          element.disabled = false;
          say(problem, error.message);
        }
      });
      return element;
    };
    return make("div", "invitation",
      make("p", "", make("b", "", by), " invites you to ", make("b", "", title)),
      make("div", "", answer("Join", "primary", async () => {
        await this.client.command(room, "join");
        this.go(room);
      }), answer("Decline", "", () => this.decline(room))), problem);
  }

  // Where the room takes no answer any more, closed since say, it is put away here.
  async decline(room) {
    try {
      await this.client.command(room, "decline_invitation");
    } catch (error) {
      if (!(error instanceof Rejected) || error.retry) throw error;
      await this.client.command("me", "dismiss_invitation", { room });
    }
  }
}
