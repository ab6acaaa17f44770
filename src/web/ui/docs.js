// A page to try the HTTP API: every operation of /api/openapi.json as a form.

import { button, byId, make, say } from "./dom.js";

/** An answer that goes on for ever is cut off here. */
const SHOWN_CHARS_MAX = 64 * 1024;

async function start() {
  try {
    const document_ = await (await fetch("/api/openapi.json")).json();
    byId("about").textContent = document_.info.description ?? "";
    const { token } = document_.components?.securitySchemes ?? {};
    byId("token-field").hidden = token === undefined;
    byId("token-about").textContent = `${token?.description ?? ""}. It stays in this page's memory.`;
    const operations = Object.entries(document_.paths).flatMap(([path, item]) =>
      Object.entries(item).filter(([method]) => ["get", "post", "put", "patch", "delete"].includes(method))
        .map(([method, operation]) => new Operation(document_, method, path, operation)));
    byId("operations").replaceChildren(...operations.map(({ element }) => element));
    byId("filter").addEventListener("input", ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      for (const operation of operations) operation.element.hidden = !operation.words.includes(wanted);
    });
  } catch (error) {
    say(byId("problem"), `The description of the API is not to be had: ${error.message}`);
  }
}

/** Bodies to start from where the description leaves open what a message is. */
const hello = { type: "hello", user: "alice", session: "docs-1", rooms: [{ room: "lobby" }] };
const BODIES = {
  "/api/commands": { type: "command", id: "docs-1", room: "lobby", name: "post_message", data: { text: "good evening" } },
  "/api/frames": { type: "subscribe", id: "docs-1", room: "lobby" },
  "/api/stream": hello,
  "/api/poll": hello,
};

class Operation {
  constructor(document_, method, path, { summary, description, parameters = [], requestBody, responses = {} }) {
    Object.assign(this, { document_, method, path });
    this.fields = [];
    this.words = `${method} ${path} ${summary ?? ""} ${description ?? ""}`.toLowerCase();
    const head = make("summary", "", make("span", `method ${method}`, method.toUpperCase()), make("span", "path", path),
      make("span", "dim", summary ?? ""));
    const form = make("form", "inside");
    if (description && description !== summary) form.append(make("p", "dim", description));
    if (parameters.length > 0) form.append(make("h2", "", "Parameters"), ...parameters.map((parameter) => this.field(parameter)));
    if (requestBody) form.append(...this.bodyField(requestBody));
    form.append(make("h2", "", "Answers"), make("ul", "answers", ...Object.entries(responses).map(([status, response]) =>
      make("li", "", make("b", "", status), ` ${this.resolve(response).description ?? ""}`))));
    this.stop = button("", "Stop reading", "Stop", () => this.ending?.abort());
    this.stop.hidden = true;
    this.answer = make("div");
    this.answer.setAttribute("aria-live", "polite");
    form.append(make("div", "go", make("button", "primary", "Send"), this.stop), this.answer);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.element = make("details", "operation", head, form);
  }

  resolve(value) {
    const path = value?.$ref?.replace(/^#\//, "").split("/");
    return path ? path.reduce((found, name) => found?.[name], this.document_) ?? {} : value ?? {};
  }

  field(parameter) {
    const { name, in: where, required, description, schema } = this.resolve(parameter);
    const { type, items, default: preset } = this.resolve(schema);
    const isList = [type].flat().includes("array");
    const input = make("input");
    input.id = `${this.method}-${this.path}-${name}`;
    input.autocomplete = "off";
    input.spellcheck = false;
    input.required = required === true;
    input.placeholder = preset === undefined ? [isList ? `${this.resolve(items).type}, comma-separated` : type].flat().filter((one) => one !== "null").join(" or ") : String(preset);
    this.fields.push({ name, where, input, isList });
    const label = make("label", "", name, required ? make("b", "", " *") : null);
    label.htmlFor = input.id;
    const about = [where === "query" ? null : where, description].filter(Boolean).join(": ");
    return make("div", "field", label, input, about ? make("span", "dim", about) : null);
  }

  bodyField({ description, content = {} }) {
    const [kind, { schema } = {}] = Object.entries(content)[0] ?? ["application/json"];
    this.kind = kind;
    this.body = make("textarea");
    this.body.rows = 6;
    this.body.spellcheck = false;
    this.body.setAttribute("aria-label", "Body");
    this.body.value = JSON.stringify(BODIES[this.path] ?? this.example(schema), null, 2) ?? "";
    return [make("h2", "", `Body (${kind})`), description ? make("p", "dim", description) : null, this.body].filter(Boolean);
  }

  /** A value that a schema would take, to start from. */
  example(schema, depth = 0) {
    const found = this.resolve(schema);
    if (found.example !== undefined || found.examples?.length) return found.example ?? found.examples[0];
    if (found.properties && depth < 4) {
      return Object.fromEntries(Object.entries(found.properties).map(([name, field]) => [name, this.example(field, depth + 1)]));
    }
    const [type] = [found.type].flat();
    return { string: "", integer: 0, number: 0, boolean: false, array: [] }[type] ?? (depth === 0 ? {} : null);
  }

  request() {
    let path = this.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { name, where, input, isList } of this.fields) {
      const value = input.value.trim();
      if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
      else if (value === "") continue;
      else if (where === "header") headers[name] = value;
      else for (const one of isList ? value.split(",") : [value]) query.append(name, one.trim());
    }
    if (this.body) headers["content-type"] = this.kind;
    const token = byId("token").value.trim();
    if (token) headers.authorization = `Bearer ${token}`;
    const text = query.toString();
    return { url: text ? `${path}?${text}` : path, init: { method: this.method.toUpperCase(), headers, ...(this.body && { body: this.body.value }) } };
  }

  async send() {
    this.ending?.abort();
    const ending = new AbortController();
    this.ending = ending;
    const { url, init } = this.request();
    const output = make("pre", "", "…");
    const line = make("p", "", `${init.method} ${url}`);
    this.answer.replaceChildren(make("h2", "", "Answer"), line, output);
    this.stop.hidden = false;
    const startedAt = performance.now();
    try {
      const answer = await fetch(url, { ...init, signal: ending.signal });
      const took = Math.round(performance.now() - startedAt);
      line.replaceChildren(make("span", answer.ok ? "status-good" : "status-bad", `${answer.status} ${answer.statusText}`),
        ` in ${took} ms · ${answer.headers.get("content-type") ?? "no body"}`);
      await this.show(answer, output, ending);
    } catch (error) {
      if (error.name !== "AbortError") output.textContent = `Not answered: ${error.message}`;
    }
    if (this.ending === ending) this.stop.hidden = true; // else it stops what was sent since
  }

  async show(answer, output, ending) {
    const isJson = /json\b/.test(answer.headers.get("content-type") ?? "") && !/ndjson/.test(answer.headers.get("content-type"));
    output.textContent = "";
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
      text += part.value;
      output.textContent = text;
      if (text.length > SHOWN_CHARS_MAX) {
        ending.abort();
        output.textContent = `${text.slice(0, SHOWN_CHARS_MAX)}\n… cut off here`;
        return;
      }
    }
    if (!isJson) return;
    try {
      output.textContent = JSON.stringify(JSON.parse(text), null, 2);
    } catch { /* shown as it came */ }
  }
}

start();
