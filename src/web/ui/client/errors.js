// Why a promise of this client is rejected. `code` is a stable word, made to be compared.

/** The server's no: `code` is one of the protocol's words, and nothing was recorded. */
export class Rejected extends Error {
  constructor({ code, message, detail, retry, after_ms, head }) {
    super(detail ?? message);
    this.name = "Rejected";
    this.code = code;
    /** For `rule`, the rule's own stable word. */
    this.rule = code === "rule" ? message : undefined;
    this.retry = retry === true;
    this.afterMs = after_ms;
    this.head = head;
  }
}

/**
 * A command that waited so long that it may no longer apply, or that names a message of a history
 * which the server has no more. It was not dropped: `command` is
 * handed back, and stays stored until it is sent again (`client.resend`) or given up (`client.discard`).
 */
export class Expired extends Error {
  constructor(command, ageMs) {
    super(command.expiredBy === "history"
      ? "not sent: the server's history was replaced since, and what it names may be another message there; send it again or discard it"
      : `not sent: it has waited ${Math.round(ageMs / 3_600_000)} hours for a connection; send it again or discard it`);
    this.name = "Expired";
    this.code = "expired";
    this.command = command;
  }
}

/** This client's own no: `closed`, `discarded`, `id_in_use`, `malformed`, `queue_full`, `too_big`. */
export class ClientError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "ClientError";
    this.code = code;
  }
}

/** An HTTP answer that is no success, read from its problem document. */
export class HttpError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.name = "HttpError";
    this.status = status;
    this.code = problem.code ?? "internal";
    this.title = problem.title;
    this.afterMs = problem.after_ms;
  }
}
