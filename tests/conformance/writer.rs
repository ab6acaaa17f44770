//! A writer that sends each command until it is answered, over whatever way it has.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::imports::Chance;
use crate::ways::{Broken, Came, From, Line, Person, Way};

/// A command and where it was recorded.
pub struct Acknowledged {
    pub id: String,
    pub room: String,
    pub revision: u64,
    pub attempts: u64,
}

/// Sends a command until its answer comes.
pub fn send(person: &Person, to: SocketAddr, room: &str, id: &str, chance: &mut Chance) -> Acknowledged {
    let command =
        json!({"type": "command", "id": id, "room": room, "name": "post_message", "data": {"text": id}});
    let mut attempts = 0;
    loop {
        attempts += 1;
        let answered = if chance.below(2) == 0 {
            by_socket(person, to, &command)
        } else {
            by_post(person, to, &command)
        };
        match answered {
            Ok(ack) => {
                assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(id)), "{ack}");
                let revision = ack["revision"].as_u64().unwrap();
                return Acknowledged { id: id.to_owned(), room: room.to_owned(), revision, attempts };
            }
            Err(Broken::Cut | Broken::Closed(_)) => {}
            Err(Broken::Refused(status, problem)) => assert_eq!(status, 503, "{problem}"),
        }
    }
}

fn by_post(person: &Person, to: SocketAddr, command: &Value) -> Result<Value, Broken> {
    match person.post(to, "/api/commands", command)? {
        (200, ack) => Ok(ack),
        (status, problem) => Err(Broken::Refused(status, problem)),
    }
}

fn by_socket(person: &Person, to: SocketAddr, command: &Value) -> Result<Value, Broken> {
    let mut line = Line::open(Way::Socket, to, person, &From::Rooms(json!([])))?;
    line.say(to, person, command)?;
    loop {
        let Came { messages, .. } = line.next(to, person)?;
        if let Some(answer) = messages.into_iter().find(|message| message["id"] == command["id"]) {
            return Ok(answer);
        }
    }
}
