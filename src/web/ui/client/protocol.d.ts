// The messages of the protocol. Generated from the server's own types: do not edit.

export interface Ack {
  type: "ack";
  /** It had been recorded before. */
  duplicate: boolean;
  /** The command's id. */
  id: CommandId;
  position?: Position | null;
  revision?: Revision | null;
  /** The room. */
  room: EntityId;
}

export interface AddReaction {
  /** The reaction, usually one emoji. */
  emoji: string;
  /** The message. */
  target: Revision;
}

/** A client's `authenticate`: a fresh token for this connection. */
export interface Authenticate {
  type: "authenticate";
  /** Comes back in the answer. */
  id: CommandId;
  /** The fresh token, of the same user. */
  token: Token;
}

/** The server's `authenticate`: the token runs out. */
export interface AuthenticateBy {
  type: "authenticate";
  /** Send a fresh one by then. */
  by: UnixMillis;
}

/** The answer to it. */
export interface Authenticated {
  type: "authenticated";
  /** The request's id. */
  id: CommandId;
  token_expires_at?: UnixMillis | null;
}

/** How a client wants to catch up. */
export type CatchUp = "events" | "state";

export interface CloseRoom {
  /** Why, if the owner says so. */
  reason?: string | null;
}

/** The server's `closed`: no more events of this room come. */
export interface Closed {
  type: "closed";
  /** Why. */
  code: ClosedCode;
  /** The room. */
  room: EntityId;
}

/** Why a room is no longer the client's to read. */
export type ClosedCode = "removed" | "not_a_member" | "erased" | "closed";

export type Command = CommandFrame & ({
  data?: OpenRoom;
  name: "open_room";
} | {
  data?: RenameRoom;
  name: "rename_room";
} | {
  data?: CloseRoom;
  name: "close_room";
} | {
  data?: SetVisibility;
  name: "set_visibility";
} | {
  data?: Join;
  name: "join";
} | {
  data?: Leave;
  name: "leave";
} | {
  data?: RemoveMember;
  name: "remove_member";
} | {
  data?: InviteMember;
  name: "invite_member";
} | {
  data?: DeclineInvitation;
  name: "decline_invitation";
} | {
  data?: WithdrawInvitation;
  name: "withdraw_invitation";
} | {
  data?: RenameMember;
  name: "rename_member";
} | {
  data?: PostMessage;
  name: "post_message";
} | {
  data?: EditMessage;
  name: "edit_message";
} | {
  data?: RedactMessage;
  name: "redact_message";
} | {
  data?: AddReaction;
  name: "add_reaction";
} | {
  data?: RemoveReaction;
  name: "remove_reaction";
} | {
  data?: SetProfile;
  name: "set_profile";
} | {
  data?: DismissInvitation;
  name: "dismiss_invitation";
});

export interface CommandFrame {
  type: "command";
  by?: MemberId | null;
  /** Its arguments. */
  data?: unknown;
  expected?: Revision | null;
  /** Unique; the key under which a retry finds its first outcome. */
  id: CommandId;
  /** What to do, such as `post_message`. */
  name: string;
  occurred_at?: UnixMillis | null;
  /** The room it is for. */
  room: EntityId;
}

/** A client-made id: 1 to 128 visible ASCII characters */
export type CommandId = string;

export interface DeclineInvitation {
  /** Why, if they say so. */
  reason?: string | null;
}

export interface DismissInvitation {
  /** The room. */
  room: EntityId;
}

/** The server's `drain`. */
export interface Drain {
  type: "drain";
  /** The connection is closed after this, in milliseconds. */
  in_ms: number;
  /** Come back this long after that, in milliseconds: each client has a slot of its own. */
  slot_ms: number;
}

export interface EditMessage {
  /** The message. */
  target: Revision;
  /** Its words from now on. */
  text: string;
}

/** A room's id: 1 to 128 visible ASCII characters but / % : " < > */
export type EntityId = string;

/** A client's `ephemeral`. It is dropped if the room was closed. */
export interface Ephemeral {
  type: "ephemeral";
  /** Anything, of lists and objects at most 64 in each other; what is left out is sent on as null. */
  data?: unknown;
  /** What it is. */
  name: EphemeralName;
  /** The room that is told. */
  room: EntityId;
}

/** The server's `ephemeral`: as it was sent, with its author. */
export interface EphemeralFrame {
  type: "ephemeral";
  /** Whose it is. */
  by: MemberId;
  /** As it was sent. */
  data: unknown;
  /** What it is. */
  name: EphemeralName;
  /** The room. */
  room: EntityId;
}

/** What kind of ephemeral it is, such as `typing` or `caret`: 1 to 32 of a-z, 0-9 and _. Of those by one member with one name in one room only the newest counts. */
export type EphemeralName = string;

/** Names one history of the log; raised when recorded history was cut or replaced */
export type Epoch = string;

/** Why something was refused. Stable words; HTTP carries the same in its problem documents. */
export type ErrorCode = "malformed" | "too_large" | "forbidden" | "not_found" | "not_a_member" | "rule" | "conflict" | "command_id_reused" | "ahead_of_log" | "rate_limited" | "quota_exhausted" | "token_expired" | "unavailable" | "unknown_outcome" | "internal";

export type Event = EventHead & {
  /** The command it came from; only its author is told */
  command?: string;
} & ({
  data: RoomOpened;
  name: "RoomOpened";
} | {
  data: RoomRenamed;
  name: "RoomRenamed";
} | {
  data: RoomClosed;
  name: "RoomClosed";
} | {
  data: RoomVisibilitySet;
  name: "RoomVisibilitySet";
} | {
  data: MemberJoined;
  name: "MemberJoined";
} | {
  data: MemberLeft;
  name: "MemberLeft";
} | {
  data: MemberRemoved;
  name: "MemberRemoved";
} | {
  data: MemberRenamed;
  name: "MemberRenamed";
} | {
  data: MemberInvited;
  name: "MemberInvited";
} | {
  data: InvitationAccepted;
  name: "InvitationAccepted";
} | {
  data: InvitationDeclined;
  name: "InvitationDeclined";
} | {
  data: InvitationWithdrawn;
  name: "InvitationWithdrawn";
} | {
  data: MessagePosted;
  name: "MessagePosted";
} | {
  data: MessageEdited;
  name: "MessageEdited";
} | {
  data: MessageRedacted;
  name: "MessageRedacted";
} | {
  data: ReactionAdded;
  name: "ReactionAdded";
} | {
  data: ReactionRemoved;
  name: "ReactionRemoved";
} | {
  data: ProfileChanged;
  name: "ProfileChanged";
} | {
  data: InvitationReceived;
  name: "InvitationReceived";
} | {
  data: InvitationEnded;
  name: "InvitationEnded";
} | {
  data: ReadMarkerMoved;
  name: "ReadMarkerMoved";
} | {
  data: SessionStarted;
  name: "SessionStarted";
});

/** The fields that every `event` has. */
export interface EventHead {
  type: "event";
  by: MemberId;
  name: string;
  occurred_at?: UnixMillis | null;
  position: Position;
  recorded_at: UnixMillis;
  revision: Revision;
  room: EntityId;
}

/** A room's id, or `me`: one's own stream */
export type Followed = string;

/** Who is there, and where they stand in each room. */
export interface Hello {
  type: "hello";
  /** A cursor of a stream or poll: its rooms are followed too, from where it stands. */
  cursor?: string | null;
  /** What the person would call the device. */
  device?: string | null;
  /** The rooms to follow from the start. */
  rooms?: RoomCursor[];
  /** Made by the client, unique to tab and user, stable over reconnects: 1 to 128 visible ASCII characters. */
  session: CommandId;
  token?: Token | null;
  user?: MemberId | null;
}

export interface HistoryRequest {
  type: "history";
  before?: Revision | null;
  /** Comes back in the answer. */
  id: CommandId;
  /** Events at the most. */
  limit?: number;
  /** The room. */
  room: EntityId;
}

/** How a room's cursor was taken. */
export type How = "events" | "state" | "reset" | "denied";

/** Their `MemberJoined` follows. */
export interface InvitationAccepted {
  /** Who was invited. */
  member: MemberId;
}

export interface InvitationDeclined {
  /** Who was invited. */
  member: MemberId;
  /** Why, if it was said. */
  reason?: string | null;
}

export interface InvitationEnded {
  /** How. */
  outcome: InvitationOutcome;
  /** The room. */
  room: EntityId;
}

/** How an invitation ended. */
export type InvitationOutcome = "accepted" | "declined" | "withdrawn" | "dismissed";

export interface InvitationReceived {
  /** Who invited. */
  by: MemberId;
  /** The room. */
  room: EntityId;
  /** What the room was called then: who is invited may not read it yet. */
  title: string;
}

export interface InvitationWithdrawn {
  /** Who was invited. */
  member: MemberId;
}

export interface InviteMember {
  /** Who is to come: a person or a persona. */
  member: MemberId;
}

export interface Join {
  /** The name to be shown in this room; without it, the author's id without its kind. */
  display_name?: string | null;
}

export interface Leave {
  /** Why, if the member says so. */
  reason?: string | null;
}

/** Limits a client must keep to. */
export interface Limits {
  /** Bytes of one frame. */
  frame_bytes_max: number;
  /** Events of one history page. */
  history_events_max: number;
  /** Commands sent and not yet answered; more are read later. */
  in_flight_commands_max: number;
  /** Bytes of one message. */
  message_bytes_max: number;
  /** Rooms one connection may follow. */
  rooms_max: number;
}

export interface Live {
  type: "live";
  revision?: Revision | null;
  /** The room, or `me`. */
  room: Followed;
}

/** Who: a user's id, or persona:NAME or integration:NAME */
export type MemberId = string;

/** Its author invites. */
export interface MemberInvited {
  /** Who is asked to come. */
  member: MemberId;
  /** What the room is called, so that its notice can be told from this event alone. */
  title: string;
}

export interface MemberJoined {
  /** The name shown in this room. */
  display_name: PersonalText;
  /** Who came in. */
  member: MemberId;
}

export interface MemberLeft {
  /** Who left; where the author is someone else, they were removed, as releases before [`MemberRemoved`] told it. */
  member: MemberId;
  /** Why, if it was said. */
  reason?: string | null;
}

/** They read the room no more until they join it again. */
export interface MemberRemoved {
  /** Who had to go. */
  member: MemberId;
  /** Why, if it was said. */
  reason?: string | null;
}

export interface MemberRenamed {
  /** The name shown from now on. */
  display_name: PersonalText;
  /** Whose name it is. */
  member: MemberId;
}

export interface MessageEdited {
  /** The message. */
  target: Revision;
  /** Its words from now on. */
  text: PersonalText;
}

/** How a message is to be read. */
export type MessageKind = "text" | "action";

export interface MessagePosted {
  /** Said or done. */
  kind: MessageKind;
  reply_to?: Revision | null;
  /** The words. */
  text: PersonalText;
  thread_root?: Revision | null;
}

export interface MessageRedacted {
  /** Why, if it was said. */
  reason?: string | null;
  /** The message. */
  target: Revision;
}

export interface OpenRoom {
  /** What the room is to be called. */
  title: string;
  /** Who may read it: anyone, unless it is said. */
  visibility?: Visibility;
}

export interface Page {
  type: "page";
  /** `event` messages, ascending by revision. */
  events: unknown[];
  /** The request's id. */
  id: CommandId;
  /** Whether there are older ones. */
  more: boolean;
  /** The room. */
  room: EntityId;
}

/** A text, or, sealed under its subject's key, what is left of it */
export type PersonalText = string | {
  "$sealed": SealedField;
};

export interface Ping {
  type: "ping";
}

export interface Pong {
  type: "pong";
}

/** A place in the whole log; opaque, ordered within one epoch */
export type Position = string;

export interface PostMessage {
  /** Said (the default) or done. */
  kind?: MessageKind;
  reply_to?: Revision | null;
  /** The words. Any character is allowed, control characters included. */
  text: string;
}

/** The server's `presence`: `full` or `diff`. */
export type Presence = PresenceChange & {
  /** The room. */
  room: EntityId;
} & {
  type: "presence";
};

/** The whole, or what changed. */
export type PresenceChange = {
  /** Forget what was known of this room's presence and take this. */
  full: {
    /** Whether `members` holds all of them. */
    complete: boolean;
    /** Members present. */
    count: number;
    /** Those that are listed, by name. */
    members: MemberId[];
  };
} | {
  /** Since the last `presence` of this room. */
  diff: {
    /** Members present now. */
    count: number;
    /** Who came; empty where the list is not complete. */
    joined: MemberId[];
    /** Who left; empty where the list is not complete. */
    left: MemberId[];
  };
};

/** The whole profile from now on: what is absent is not told. */
export interface ProfileChanged {
  avatar?: PersonalText | null;
  display_name?: PersonalText | null;
  locale?: PersonalText | null;
}

export interface ReactionAdded {
  /** The reaction, usually one emoji. */
  emoji: string;
  /** The message. */
  target: Revision;
}

export interface ReactionRemoved {
  /** The reaction. */
  emoji: string;
  /** The message. */
  target: Revision;
}

/** A marker never moves back. */
export interface ReadMarkerMoved {
  /** The last revision read, on whichever device. */
  revision: Revision;
  /** The room. */
  room: EntityId;
}

export interface Ready {
  type: "ready";
  /** This connection's id, as logs and metrics name it. */
  connection: string;
  /** After this much silence the server pings, in milliseconds. */
  heartbeat_ms: number;
  /** What a client must keep to. */
  limits: Limits;
  /** How to come back after an interruption. */
  reconnect: Reconnect;
  /** One entry a room of the hello, in its order. */
  rooms: RoomEntry[];
  token_expires_at?: UnixMillis | null;
  /** Who the server takes the client for. */
  user: MemberId;
}

/** Exponential backoff with jitter. */
export interface Reconnect {
  /** The first delay's upper bound, in milliseconds. */
  base_ms: number;
  /** No delay's upper bound is above this, in milliseconds. */
  cap_ms: number;
  /** `full`: draw uniformly between 0 and the bound. */
  jitter: string;
}

export interface RedactMessage {
  /** Why, if it is said. */
  reason?: string | null;
  /** The message. */
  target: Revision;
}

export interface Reject {
  type: "reject";
  /** When to ask again, in milliseconds. */
  after_ms?: number | null;
  /** The stable word. */
  code: ErrorCode;
  /** For `rule`, the sentence. */
  detail?: string | null;
  head?: Revision | null;
  id?: CommandId | null;
  /** For `rule`, the rule's own stable word; else a sentence. */
  message: string;
  /** Whether asking again may help. */
  retry: boolean;
}

export interface RemoveMember {
  /** Who is to go. */
  member: MemberId;
  /** Why, if the owner says so. */
  reason?: string | null;
}

export interface RemoveReaction {
  /** The reaction. */
  emoji: string;
  /** The message. */
  target: Revision;
}

export interface RenameMember {
  /** The author's own name from now on. */
  display_name: string;
}

export interface RenameRoom {
  /** The title from now on. */
  title: string;
}

/** A place in a room: 0, 1, 2 and so on, without gaps */
export type Revision = number;

export interface RoomClosed {
  /** Why, if it was said. */
  reason?: string | null;
}

/** Where a client stands in a room. */
export interface RoomCursor {
  after?: Revision | null;
  /** How to catch up. */
  catch_up?: CatchUp;
  epoch?: Epoch | null;
  /** The room, or `me`. */
  room: Followed;
}

/** One room of a `ready`, or of a `subscribed`. */
export interface RoomEntry {
  after?: Revision | null;
  code?: ErrorCode | null;
  /** The epoch of its revisions. */
  epoch: Epoch;
  head?: Revision | null;
  /** How the cursor was taken. */
  how: How;
  /** The room, or `me`; of a hello, the name that was given, whether or not it can be one. */
  room: Followed;
  seen?: Revision | null;
  /** Messages of others past `seen`, up to `head`; those of the last [`UNREAD_EVENTS_MAX`](super::UNREAD_EVENTS_MAX) events are counted. */
  unread?: number | null;
  /** Whether there may be more unread messages, which were not counted. */
  unread_more?: boolean;
}

export interface RoomOpened {
  /** Who may rename and close it, remove members and redact any message. */
  owner: MemberId;
  /** What the room is called. */
  title: string;
}

export interface RoomRenamed {
  /** The new title. */
  title: string;
}

/** The server's `room_state`: what a latecomer gets in place of a room's history. */
export interface RoomState {
  type: "room_state";
  /** The last events up to that revision, ascending. */
  events: unknown[];
  /** The revision that `state` was read at; the next event is the one after it. */
  revision: Revision;
  /** The room, or `me`. */
  room: Followed;
  /** The public state. */
  state: unknown;
}

export interface RoomVisibilitySet {
  /** Who may read it from now on. */
  visibility: Visibility;
}

/** An encrypted value. All three fields are text: a key's name, and base64 for the rest. */
export interface SealedField {
  /** The encrypted JSON of the value, base64. */
  ciphertext: string;
  /** The name of the subject's key. */
  key: string;
  /** The nonce, base64. */
  nonce: string;
}

/** A client's `seen`: it has shown the room up to this revision. */
export interface Seen {
  type: "seen";
  /** The last revision shown. */
  revision: Revision;
  /** The room. */
  room: EntityId;
}

/** Coming back to a session is not recorded. */
export interface SessionStarted {
  device?: PersonalText | null;
  /** The session's name, made by the client. */
  session: CommandId;
}

export interface SetProfile {
  /** Where a picture is: an address, or a name that the product understands. */
  avatar?: string | null;
  /** The name to go by. */
  display_name?: string | null;
  /** A language tag such as `pt-BR`. */
  locale?: string | null;
}

export interface SetVisibility {
  /** Who may read it from now on. */
  visibility: Visibility;
}

export interface Subscribe {
  type: "subscribe";
  after?: Revision | null;
  /** How to catch up. */
  catch_up?: CatchUp;
  epoch?: Epoch | null;
  /** Comes back in the answer. */
  id: CommandId;
  /** The room, or `me`. */
  room: Followed;
}

export type Subscribed = RoomEntry & {
  /** The request's id. */
  id: CommandId;
} & {
  type: "subscribed";
};

/** A token as it came. It is never shown: not in logs, not in errors. */
export type Token = string;

/** Milliseconds since 1970-01-01T00:00:00Z */
export type UnixMillis = number;

export interface Unsubscribe {
  type: "unsubscribe";
  /** Comes back in the answer. */
  id: CommandId;
  /** The room, or `me`. */
  room: Followed;
}

export interface Unsubscribed {
  type: "unsubscribed";
  /** The request's id. */
  id: CommandId;
  /** The room, or `me`. */
  room: Followed;
}

/** Who may read a room. */
export type Visibility = "open" | "invited";

export interface WithdrawInvitation {
  /** Who was invited. */
  member: MemberId;
}

export type ClientMessage = Hello | Subscribe | Unsubscribe | Command | HistoryRequest | Ephemeral | Seen | Authenticate | Pong;

export type ServerMessage = Ready | Subscribed | Unsubscribed | Live | Ack | Reject | Page | RoomState | Closed | EphemeralFrame | Presence | AuthenticateBy | Authenticated | Drain | Ping | Event;
