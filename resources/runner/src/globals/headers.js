// Headers (Fetch standard): names and values are byte strings; duplicate names stay separate.
import { byteString, platformClass, requireArguments } from "./support/webidl.js";

const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const edges = /^[\t\n\r ]+|[\t\n\r ]+$/g;

function headerName(value, context) {
  const name = byteString(value, `${context}: the name`);
  if (!tokenPattern.test(name)) throw new TypeError(`${context}: Invalid header name: '${name}'`);
  return name.toLowerCase();
}

function headerValue(value, context) {
  const text = byteString(value, `${context}: the value`).replace(edges, "");
  if (/[\0\r\n]/.test(text)) throw new TypeError(`${context}: Invalid header value: '${text}'`);
  return text;
}

let pairsOf;
let makeImmutable;

class Headers {
  /** [lower-case name, value] in order of arrival. */
  #pairs = [];
  #immutable = false;

  static {
    pairsOf = (headers) => headers.#pairs;
    makeImmutable = (headers) => {
      headers.#immutable = true;
      return headers;
    };
  }

  constructor(init = undefined) {
    if (init === undefined) return;
    if (init === null || (typeof init !== "object" && typeof init !== "function")) {
      throw new TypeError("Headers: the initializer is not a record or a sequence.");
    }
    if (#pairs in init) {
      this.#pairs = init.#pairs.map((pair) => [...pair]);
    } else if (init[Symbol.iterator] !== undefined && init[Symbol.iterator] !== null) {
      for (const entry of init) {
        const pair = Array.from(entry);
        if (pair.length !== 2) throw new TypeError("Headers: each pair must be a name and a value.");
        this.append(pair[0], pair[1]);
      }
    } else {
      for (const name of Reflect.ownKeys(init)) {
        if (!Object.getOwnPropertyDescriptor(init, name)?.enumerable) continue;
        if (typeof name === "symbol") throw new TypeError("Headers: a name is a symbol.");
        this.append(name, init[name]);
      }
    }
  }

  #check() {
    if (this.#immutable) throw new TypeError("Headers are immutable.");
  }

  append(name, value) {
    requireArguments(arguments.length, 2, "Headers.append");
    const pair = [headerName(name, "Headers.append"), headerValue(value, "Headers.append")];
    this.#check();
    this.#pairs.push(pair);
  }

  delete(name) {
    requireArguments(arguments.length, 1, "Headers.delete");
    const key = headerName(name, "Headers.delete");
    this.#check();
    this.#pairs = this.#pairs.filter((pair) => pair[0] !== key);
  }

  get(name) {
    requireArguments(arguments.length, 1, "Headers.get");
    const key = headerName(name, "Headers.get");
    const values = this.#pairs.filter((pair) => pair[0] === key).map((pair) => pair[1]);
    return values.length === 0 ? null : values.join(", ");
  }

  getSetCookie() {
    return this.#pairs.filter((pair) => pair[0] === "set-cookie").map((pair) => pair[1]);
  }

  has(name) {
    requireArguments(arguments.length, 1, "Headers.has");
    const key = headerName(name, "Headers.has");
    return this.#pairs.some((pair) => pair[0] === key);
  }

  set(name, value) {
    requireArguments(arguments.length, 2, "Headers.set");
    const key = headerName(name, "Headers.set");
    const text = headerValue(value, "Headers.set");
    this.#check();
    const first = this.#pairs.findIndex((pair) => pair[0] === key);
    if (first < 0) {
      this.#pairs.push([key, text]);
      return;
    }
    this.#pairs = this.#pairs.filter((pair, i) => i <= first || pair[0] !== key);
    this.#pairs[first] = [key, text];
  }

  /** Sorted by name, equal names joined, except Set-Cookie. */
  #sorted() {
    const names = [...new Set(this.#pairs.map((pair) => pair[0]))].sort();
    return names.flatMap((name) =>
      name === "set-cookie" ? this.getSetCookie().map((value) => [name, value]) : [[name, this.get(name)]],
    );
  }

  *#walk() {
    for (let i = 0; ; i++) {
      const pairs = this.#sorted();
      if (i >= pairs.length) return;
      yield pairs[i];
    }
  }

  forEach(callback, thisArgument = undefined) {
    requireArguments(arguments.length, 1, "Headers.forEach");
    if (typeof callback !== "function") throw new TypeError("Headers.forEach: parameter 1 is not a function.");
    for (const [name, value] of this.#walk()) Reflect.apply(callback, thisArgument, [value, name, this]);
  }

  entries() {
    return this.#walk();
  }

  *keys() {
    for (const [name] of this.#walk()) yield name;
  }

  *values() {
    for (const [, value] of this.#walk()) yield value;
  }
}

platformClass(Headers, "Headers");
Object.defineProperty(Headers.prototype, Symbol.iterator, {
  value: Headers.prototype.entries,
  writable: true,
  configurable: true,
});

/** [name, value] pairs in order, duplicates apart: what goes over the wire. */
export const headerPairs = (headers) => pairsOf(headers).map((pair) => [pair[0], pair[1]]);

/** Headers made of pairs that arrived over the wire; bytes that the Headers constructor would refuse are kept. */
export function headersOf(pairs, { immutable = false } = {}) {
  const headers = new Headers();
  for (const [name, value] of pairs) pairsOf(headers).push([String(name).toLowerCase(), String(value)]);
  return immutable ? makeImmutable(headers) : headers;
}

export { Headers };
