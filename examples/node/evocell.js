// A client of `evocell serve` for Node.js, written from docs/pipe.md alone.
//
// Every method of the engine is a method of the client: `await engine.create_sandbox({ id: "a", source: "..." })`.

import { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { connect } from "node:net";
import { ExtensionCodec, decode, decodeMultiStream, encode } from "@msgpack/msgpack";

const PROTOCOL = 1;
const GREETING = {
  protocol: PROTOCOL,
  client: `evocell-node-example, node ${process.version}`,
  // Maps that JavaScript has no object for come as type 9, and become a Map.
  types: { tuples: "list", arrays: "list", maps: "plain" },
};
const GRACE_MS = 5000;

/** What the server answered instead of a result. */
export class EvocellError extends Error {
  constructor({ code, message, data }) {
    super(message);
    this.name = code;
    this.code = code;
    this.data = data ?? {};
  }
}

const types = new ExtensionCodec();

types.register({
  type: 1, // an integer beyond 64 bits: two's complement, big-endian
  encode: (value) => (typeof value === "bigint" ? bigEndian(value) : null),
  decode: (data) => data.reduce((sum, byte) => (sum << 8n) | BigInt(byte), data[0] >= 0x80 ? -1n : 0n),
});
types.register({
  type: 8, // a complex number: two float64, little-endian
  encode: () => null,
  decode: (data) => {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    return { re: view.getFloat64(0, true), im: view.getFloat64(8, true) };
  },
});
types.register({
  type: 9, // a map with keys that no object should have
  encode: () => null,
  decode: (data) => new Map(decode(data, { extensionCodec: types, useBigInt64: false })),
});
types.register({
  type: 2, // a tuple; only as a key of type 9, since we asked for lists
  encode: () => null,
  decode: (data) => decode(data, { extensionCodec: types }),
});

function bigEndian(value) {
  const bytes = [];
  let rest = value;
  do {
    bytes.unshift(Number(BigInt.asUintN(8, rest)));
    rest >>= 8n;
  } while (!((rest === 0n && bytes[0] < 0x80) || (rest === -1n && bytes[0] >= 0x80)));
  return Uint8Array.from(bytes);
}

/**
 * One connection to a server. Emits the server's notifications under their names: "event", "image.progress",
 * "image.ready", "image.failed"; and "closed" with the reason at the end.
 */
export class Engine extends EventEmitter {
  #write;
  #end;
  #nextId = 0;
  #waiting = new Map();
  #functions = new Map();
  #nextFunction = 0;
  #reason = null;

  constructor(readable, writable, end) {
    super();
    this.#write = (message) => writable.write(encode(message, { extensionCodec: types }));
    this.#end = end;
    writable.on("error", () => {}); // a server that is gone is noticed where its output ends
    this.#read(readable);
    // What is no method of this class is one of the engine's.
    return new Proxy(this, {
      get: (target, name) => {
        if (name in target || typeof name !== "string" || name === "then") {
          const found = Reflect.get(target, name, target);
          return typeof found === "function" ? found.bind(target) : found;
        }
        return (params = {}, options = {}) => target.request(name, params, options);
      },
    });
  }

  /** Ask the server. `signal` withdraws the request; `part` is called with each part of a stream. */
  request(method, params, { signal, part } = {}) {
    if (this.#reason) return Promise.reject(this.#reason);
    const msgid = this.#freeId();
    const lent = [];
    const plain = this.#lend(params, lent);
    return new Promise((resolve, reject) => {
      const cancel = () => this.#write([2, "cancel", [{ msgid }]]);
      const settle = (error, result) => {
        signal?.removeEventListener("abort", cancel);
        for (const name of lent) this.#functions.delete(name);
        if (error) reject(error);
        else resolve(result);
      };
      this.#waiting.set(msgid, { settle, part });
      this.#write([0, msgid, method, [plain]]);
      if (signal?.aborted) cancel();
      else signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /** Results one by one, as they are there: `for await (const [index, result] of engine.stream(...))`. */
  async *stream(method, params) {
    const parts = [];
    let wake = () => {};
    let over = false;
    const done = this.request(method, params, {
      part: (part) => {
        parts.push(part);
        wake();
      },
    }).finally(() => {
      over = true;
      wake();
    });
    done.catch(() => {}); // awaited below
    while (parts.length > 0 || !over) {
      if (parts.length > 0) yield parts.shift();
      else await new Promise((resolve) => (wake = resolve));
    }
    await done;
  }

  /** End the session; its sandboxes are gone when this returns. */
  async close() {
    if (!this.#reason) await this.request("shutdown", {}).catch(() => {});
    await this.#end();
  }

  #freeId() {
    do this.#nextId = (this.#nextId + 1) % 2 ** 32;
    while (this.#waiting.has(this.#nextId));
    return this.#nextId;
  }

  /** A copy of a value in which functions are replaced by names under which the server can ask for them. */
  #lend(value, lent) {
    if (typeof value === "function") {
      const name = `function-${++this.#nextFunction}`;
      this.#functions.set(name, value);
      lent.push(name);
      return { function: name };
    }
    if (Array.isArray(value)) return value.map((item) => this.#lend(item, lent));
    if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.#lend(item, lent)]));
    }
    return value;
  }

  async #read(readable) {
    let reason = new EvocellError({ code: "ConnectionClosed", message: "the server has closed the connection" });
    try {
      for await (const message of decodeMultiStream(readable, { extensionCodec: types })) {
        if (message[0] === 1) this.#answered(message);
        else if (message[0] === 0) this.#asked(message);
        else if (message[1] === "closing") reason = new EvocellError(message[2][0]);
        else this.#told(message[1], message[2][0]);
      }
    } catch (error) {
      reason = error;
    }
    this.#reason = reason;
    for (const { settle } of this.#waiting.values()) settle(reason);
    this.#waiting.clear();
    this.emit("closed", reason);
  }

  #answered([, msgid, error, result]) {
    const { settle } = this.#waiting.get(msgid);
    this.#waiting.delete(msgid);
    settle(error === null ? null : new EvocellError(error), result);
  }

  /** The server needs a function of ours. */
  async #asked([, msgid, method, [{ function: name, args }]]) {
    try {
      const lent = this.#functions.get(name);
      if (method !== "call" || !lent) throw new Error(`there is no function ${name}`);
      this.#write([1, msgid, null, (await lent(...args)) ?? null]);
    } catch (error) {
      this.#write([1, msgid, { code: error.name, message: error.message, data: {} }, null]);
    }
  }

  #told(method, params) {
    if (method === "part") this.#waiting.get(params.msgid)?.part?.(params.part);
    else if (method === "call") this.#functions.get(params.function)?.(...params.args);
    else this.emit(method, params);
  }
}

async function greet(engine, hello) {
  const answer = await engine.request("hello", { ...GREETING, ...hello });
  engine.session = answer.session;
  engine.image = answer.image;
  engine.limits = answer.limits;
  return engine;
}

/** Start a server of one's own, which ends with this process. */
export async function start({ command = "evocell", args = [], env = {}, hello = {} } = {}) {
  const child = spawn(command, ["serve", ...args], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  const exited = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  exited.catch(() => {}); // told to whoever awaits the hello, as a closed connection
  const end = async () => {
    child.stdin.end();
    const late = setTimeout(() => child.kill("SIGKILL"), GRACE_MS);
    await exited;
    clearTimeout(late);
  };
  const engine = new Engine(child.stdout, child.stdin, end);
  engine.process = child;
  return Promise.race([greet(engine, hello), exited.then((code) => { throw new Error(`${command} ended with code ${code}`); })]);
}

/** Connect to a server on a Unix socket ({ path }) or a port of this machine ({ port, token }). */
export async function attach({ path, host = "127.0.0.1", port, token, hello = {} }) {
  const socket = path ? connect(path) : connect(port, host);
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  const end = () => new Promise((resolve) => (socket.destroyed ? resolve() : (socket.once("close", resolve), socket.end())));
  return greet(new Engine(socket, socket, end), token ? { ...hello, token } : hello);
}
