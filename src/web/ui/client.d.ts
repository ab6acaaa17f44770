// The types of `client.js`. Those of the messages are generated: see `client/protocol.d.ts`.

import type {
  Ack, CommandId, EntityId, Epoch, ErrorCode, Event, MemberId, Page, Position, Ready, Reject, Revision, ServerMessage,
} from "./client/protocol.js";

export type * from "./client/protocol.js";

type Off = () => void;
type MaybePromise<T> = T | Promise<T>;

export interface Status {
  state: "connecting" | "live" | "waiting" | "closed";
  /** What the line runs over. */
  transport?: "socket" | "stream" | "poll";
  /** While waiting: when the next attempt is due, Unix milliseconds. */
  retryAt?: number;
  /** The close code. */
  code?: number;
  reason?: string;
  /** Whether this tab holds the line for a person's others. */
  role: "alone" | "leader" | "follower";
}

/** A command on its way. */
export interface Entry {
  id: CommandId;
  owner: string;
  frame: { type: "command"; id: CommandId; room: EntityId; name: string; data: object; expected?: Revision };
  /** Unix milliseconds. */
  createdAt: number;
  /** Rises with each that one tab sent: their order within a millisecond. */
  sequence?: number;
  expireAfterMs?: number;
  /** Of the history that it was written in, where that was known. */
  epoch?: Epoch;
  /** Why it expired: it waited too long, or the server has another history since and it names a revision. */
  expiredBy?: "age" | "history";
  /** Whether it may have reached the server. */
  attempted: boolean;
  state: "waiting" | "expired";
}

/** Where commands wait that were not answered yet. */
export interface Store {
  list(): MaybePromise<Entry[]>;
  put(entry: Entry): MaybePromise<void>;
  remove(id: string): MaybePromise<void>;
  /** Whether it is gone with the page. */
  isVolatile?: boolean;
}

export interface ConnectOptions {
  /**
   * Of the server, with the path under which a proxy serves it, if it does so; in a page, its own. Needed elsewhere.
   * Throws a `TypeError` for another than `http:` and `https:`, and for a query or a fragment.
   */
  url?: string | URL;
  /** In local mode: who this is. */
  user?: MemberId;
  /** A token, or where to get one; asked with `again` once the last one ran out or was refused. */
  token?: string | ((why: { again: boolean }) => MaybePromise<string>);
  /**
   * With a token: whose it is, which keeps apart the lines and stored commands of people at one browser. Without it the
   * token's `sub` tells; where that cannot be read no line is shared and no command outlives the page. Needed to work
   * offline from the start: until a source has given its first token, what waits is in memory alone, and what was kept
   * before is not in `pending`.
   */
  account?: string;
  /** What the person would call this device. Throws a `TypeError` for what is no text. */
  device?: string;
  /** Stable over reconnects; made and kept by itself. */
  session?: string;
  /** Whether the tabs of a person share one line, where the browser can; true if left out. */
  share?: boolean;
  store?: Store;
  /** The age from which a command is handed back, not sent; three days if left out. */
  expireAfterMs?: number;
  /** What the server takes as the data of an ephemeral, where its `socket.ephemeral.data_bytes_max` is set to another than 4,096. */
  ephemeralBytesMax?: number;
  /** In order of preference. */
  transports?: ("socket" | "stream" | "poll")[];
  WebSocket?: typeof globalThis.WebSocket;
  fetch?: typeof globalThis.fetch;
}

export interface CommandOptions {
  /** The idempotency key. */
  id?: CommandId;
  /** The revision the room must stand at. */
  expected?: Revision;
  expireAfterMs?: number;
  /** `false`: a reload may forget it. */
  isStored?: boolean;
}

export interface RoomEvents {
  /** Drop what is held of this room; what follows starts anew. With another epoch the whole history is another. */
  reset: { epoch: Epoch };
  event: Event;
  state: { state: unknown; events: Event[]; revision: Revision };
  live: void;
  denied: { code: ErrorCode; message: string };
  closed: { code: string; message: string };
  presence: void;
  typing: void;
  unread: number;
  ephemeral: { name: string; data: unknown; by: MemberId };
}

/** A room as one follower sees it. Made by `client.room(id)`. */
export class Room {
  readonly id: EntityId;
  /** One that is `denied` or `closed` is asked for again once this client opens or joins it. */
  readonly state: "joining" | "catching_up" | "live" | "denied" | "closed" | "left";
  /** The room's last revision that is known of. */
  readonly head: Revision | null;
  /**
   * Messages of others past what was seen; at least so many where that lies further back than the last 200 events. Right a
   * moment after a marker moved, here or on another device (of which a client hears that follows `me`): what lies between
   * the marker and the events that came here is asked for then.
   */
  readonly unread: number;
  readonly seenRevision: Revision | null;
  readonly cursor: { epoch: Epoch | null; after: Revision | null };
  readonly presence: { count: number; members: MemberId[]; isComplete: boolean };
  /** Who is writing now, besides this person. */
  readonly typing: MemberId[];
  on<Name extends keyof RoomEvents>(name: Name, listener: (value: RoomEvents[Name]) => void): Off;
  once<Name extends keyof RoomEvents>(name: Name): Promise<RoomEvents[Name]>;
  command(name: string, data?: object, options?: CommandOptions): Promise<Ack>;
  post(text: string, options?: CommandOptions & { kind?: "text" | "action"; replyTo?: Revision | null }): Promise<Ack & { revision: Revision; position: Position }>;
  edit(target: Revision, text: string): Promise<Ack>;
  redact(target: Revision, reason?: string): Promise<Ack>;
  react(target: Revision, emoji: string): Promise<Ack>;
  unreact(target: Revision, emoji: string): Promise<Ack>;
  join(displayName?: string): Promise<Ack>;
  leave(reason?: string): Promise<Ack>;
  /** A page of the past, oldest first. Rejects with a `malformed` for what is no revision, or no number of events. */
  history(options?: { before?: Revision; limit?: number }): Promise<Page & { events: Event[] }>;
  /** Broadcasts something that is not recorded; best effort. Throws a `malformed` for a name other than 1 to 32 of a-z 0-9 _, and a `too_big`. */
  ephemeral(name: string, data?: unknown): void;
  /** Call it at each keystroke: the others are told, at most every few seconds. */
  write(): void;
  stopWriting(): void;
  /** This person has seen everything up to this revision. Throws a `malformed` for what is none. */
  seen(revision?: Revision): void;
  /** Starts over at the room's latest page. */
  restart(): void;
  /** Follows no more. */
  unfollow(): void;
}

export interface ClientEvents {
  status: Status;
  ready: Ready;
  pending: Entry[];
  /** `too_big` is this client's own word: the server takes no message so long. */
  settled: { entry: Entry; ack?: Ack; refusal?: Reject | (Omit<Reject, "code"> & { code: "too_big" }) };
  expired: Entry;
  problem: Error;
  message: ServerMessage;
}

/** A person at a server. Made by `connect`. */
export class Client {
  readonly user: MemberId | null;
  readonly status: Status;
  /** The server's greeting, while the line stands. */
  readonly greeting: Ready | null;
  /** Commands that were not answered yet, oldest first. */
  readonly pending: Entry[];
  /** Whether a command that waits outlives the page: its store has taken it. */
  isKept(id: CommandId): boolean;
  readonly rooms: Room[];
  /** One's own stream: profile, invitations, read markers, new sessions. */
  readonly me: Room;
  readonly api: Api;
  on<Name extends keyof ClientEvents>(name: Name, listener: (value: ClientEvents[Name]) => void): Off;
  once<Name extends keyof ClientEvents>(name: Name): Promise<ClientEvents[Name]>;
  /** Follows a room; the same room again gives the same object. One whose name or place no server takes is `denied`. */
  room(id: EntityId, from?: { epoch?: Epoch | null; after?: Revision | null; catchUp?: "events" | "state" }): Room;
  /** Rejects at once with a `malformed` for what is known to be none, such as text with half of an emoji. */
  command(room: EntityId, name: string, data?: object, options?: CommandOptions): Promise<Ack>;
  /** Sends an expired command after all. */
  resend(id: CommandId): void;
  /** Gives a command up; if it was sent it may still have its effect. */
  discard(id: CommandId): void;
  /** Connects now instead of when the wait is over. */
  wake(): void;
  close(): void;
}

/** Lists that the server keeps. */
export interface Api {
  /** Asks a path of the server, such as `/api/rooms`. */
  request(path: string, init?: { body?: unknown; method?: string; headers?: Record<string, string>; signal?: AbortSignal }): Promise<any>;
  /** Who asks, and a page of the rooms that they are in. */
  me(options?: { limit?: number; after?: string }): Promise<{ user: MemberId; profile: any; invitations: { room: EntityId; title: string; by: MemberId }[]; rooms: any[]; next?: string }>;
  /** One page of the rooms that this person may follow: it may hold fewer than asked for, even none, and there is more as long as there is a `next`. */
  rooms(options?: { order?: "activity" | "title"; limit?: number; after?: string }): Promise<{ rooms: any[]; next?: string }>;
  room(room: EntityId): Promise<any>;
  members(room: EntityId): Promise<any[]>;
  timeline(room: EntityId, options?: { before?: Revision; limit?: number }): Promise<{ messages: any[]; more: boolean }>;
  /** `minPosition`: as it reads once what is recorded up to there is in it, the `position` of an ack say. */
  thread(room: EntityId, root: Revision, options?: { after?: Revision; limit?: number; minPosition?: string }): Promise<{ thread: any; messages: any[]; more: boolean }>;
}

/** The server's no. */
export class Rejected extends Error {
  code: ErrorCode;
  /** For `rule`, the rule's own stable word. */
  rule?: string;
  retry: boolean;
  afterMs?: number;
  head?: Revision;
}

/** A command that waited so long that it may no longer apply, or that names a message of a history that is gone. */
export class Expired extends Error {
  code: "expired";
  command: Entry;
}

/** This client's own no. */
export class ClientError extends Error {
  code: "closed" | "discarded" | "id_in_use" | "malformed" | "queue_full" | "too_big";
}

/** An HTTP answer that is no success. */
export class HttpError extends Error {
  status: number;
  code: ErrorCode;
  title?: string;
  afterMs?: number;
}

export const EXPIRE_AFTER_MS: number;
export function memoryStore(): Store;
export function localStore(space: string, storage?: Storage): Store;
export function indexedStore(space: string): Store;

/** Opens a line to a server and keeps it. */
export function connect(options?: ConnectOptions): Client;
