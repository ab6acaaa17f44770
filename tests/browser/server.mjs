// A real server process on a data directory of its own, and a proxy in front of it that can
// cut, hold and refuse connections.

import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { promisify } from "node:util";

const ROOT = path.resolve(import.meta.dirname, "../..");
const BINARY = process.env.DRAMATIS_BIN ?? path.join(ROOT, "target/debug/dramatis");

export class Server {
  /** `prepare(server)` runs before the process starts. */
  static async start({ env = {}, prepare } = {}) {
    const server = new Server();
    server.root = await mkdtemp(path.join(tmpdir(), "dramatis-browser-"));
    server.data = path.join(server.root, "data");
    server.env = env;
    server.port = 0;
    await prepare?.(server);
    await server.up();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts the process; after the first time on the same port. */
  async up() {
    this.process = spawn(BINARY, ["serve", "--listen", `127.0.0.1:${this.port}`, "--data", this.data], {
      env: { ...process.env, RUST_LOG: "warn", ...this.env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.gone = new Promise((resolve) => this.process.once("exit", resolve));
    for await (const line of readline.createInterface({ input: this.process.stdout })) {
      const port = line.match(/http:\/\/[^\s/]*:(\d+)/)?.[1];
      if (!port) continue;
      this.port = Number(port);
      this.process.stdout.resume();
      return;
    }
    throw new Error("the server ended before it listened");
  }

  /** As a crash does. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.gone;
  }

  async terminate() {
    this.process.kill("SIGTERM");
    return this.gone;
  }

  async stop() {
    await this.kill();
    await rm(this.root, { recursive: true, force: true });
  }

  /** Runs another of the program's commands; its output, or an error with what it said. */
  async run(...args) {
    const { stdout } = await promisify(execFile)(BINARY, args, { env: { ...process.env, ...this.env } });
    return stdout.trim();
  }
}

/** A TCP proxy: clients connect to `url`, which stays the same whatever happens behind it. */
export class Proxy {
  static async start(port) {
    const proxy = new Proxy();
    proxy.target = port;
    proxy.pairs = new Set();
    proxy.mode = "pass";
    proxy.refused = [];
    proxy.isDeaf = false; // to what clients say over a WebSocket, once it is open
    proxy.unheardCount = 0; // what they said so
    proxy.socketCount = 0; // WebSockets open now
    proxy.server = net.createServer((client) => proxy.take(client));
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  take(client) {
    client.on("error", () => {});
    if (this.mode === "cut") return client.destroy();
    const behind = net.connect(this.target, "127.0.0.1");
    const pair = { client, behind, isSocket: false };
    this.pairs.add(pair);
    const end = () => {
      client.destroy();
      behind.destroy();
      if (this.pairs.delete(pair) && pair.isSocket) this.socketCount -= 1;
    };
    for (const side of [client, behind]) side.on("error", end).on("close", end);
    client.on("data", (bytes) => {
      if (pair.isSocket && this.isDeaf) {
        this.unheardCount += 1;
        return undefined;
      }
      const path = bytes.subarray(0, 64).toString("latin1").match(/^(?:GET|POST) (\S+)/)?.[1] ?? "";
      if (this.refused.some((start) => path.startsWith(start))) return end();
      if (path === "/socket") {
        pair.isSocket = true;
        this.socketCount += 1;
      }
      if (this.mode !== "silent") behind.write(bytes);
      return undefined;
    });
    behind.on("data", (bytes) => this.mode !== "silent" && client.write(bytes));
    return undefined;
  }

  /** Ends requests of paths that begin so; without any, of none. */
  refuse(...starts) {
    this.refused = starts;
  }

  /** Ends every connection and takes no new one. */
  cut() {
    this.mode = "cut";
    for (const { client, behind } of [...this.pairs]) {
      client.destroy();
      behind.destroy();
    }
  }

  restore() {
    this.mode = "pass";
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Waits until `probe` gives something true, with a deadline. */
export async function until(what, probe, withinMs = 20_000) {
  const end = Date.now() + withinMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${withinMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
