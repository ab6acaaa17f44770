// Rooms that ask for this person, and their answer.

import { Rejected } from "/client.js";
import { byId, button, make, say } from "./dom.js";

export class Invitations {
  /**
   * @param {import("/client.js").Client} client
   * @param {import("./standing.js").Standing} standing tells which there are
   * @param {(room: string) => void} go shows a room
   */
  constructor(client, standing, go) {
    Object.assign(this, { client, standing, go });
    standing.on("invitations", () => this.draw());
  }

  draw() {
    byId("invitations").replaceChildren(...this.standing.invitations.map((invitation) => this.entry(invitation)));
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
