// FormData (XMLHttpRequest standard) and its two encodings, multipart/form-data and application/x-www-form-urlencoded.
import { platformClass, requireArguments } from "./support/webidl.js";

const { Blob, File, blobBytes, fileOf } = use("blob");
const { utf8Decode, utf8Encode } = use("encoding");

let entriesOf;

function entry(name, value, filename) {
  const key = String(name).toWellFormed();
  const bytes = blobBytes(value);
  if (bytes === null) {
    if (filename !== undefined) throw new TypeError("FormData: parameter 2 is not of type 'Blob'.");
    return [key, String(value).toWellFormed()];
  }
  if (value instanceof File && filename === undefined) return [key, value];
  return [key, fileOf(bytes, filename === undefined ? "blob" : String(filename), value.type, value.lastModified)];
}

class FormData {
  #entries = [];

  static {
    entriesOf = (form) => (#entries in form ? form.#entries : null);
  }

  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("FormData: there are no form elements here.");
  }

  append(name, value, filename = undefined) {
    requireArguments(arguments.length, 2, "FormData.append");
    this.#entries.push(entry(name, value, filename));
  }

  delete(name) {
    requireArguments(arguments.length, 1, "FormData.delete");
    const key = String(name);
    this.#entries = this.#entries.filter((one) => one[0] !== key);
  }

  get(name) {
    requireArguments(arguments.length, 1, "FormData.get");
    const key = String(name);
    const found = this.#entries.find((one) => one[0] === key);
    return found === undefined ? null : found[1];
  }

  getAll(name) {
    requireArguments(arguments.length, 1, "FormData.getAll");
    const key = String(name);
    return this.#entries.filter((one) => one[0] === key).map((one) => one[1]);
  }

  has(name) {
    requireArguments(arguments.length, 1, "FormData.has");
    const key = String(name);
    return this.#entries.some((one) => one[0] === key);
  }

  set(name, value, filename = undefined) {
    requireArguments(arguments.length, 2, "FormData.set");
    const made = entry(name, value, filename);
    const first = this.#entries.findIndex((one) => one[0] === made[0]);
    if (first < 0) {
      this.#entries.push(made);
      return;
    }
    this.#entries = this.#entries.filter((one, i) => i <= first || one[0] !== made[0]);
    this.#entries[first] = made;
  }

  *#walk() {
    for (let i = 0; i < this.#entries.length; i++) yield [this.#entries[i][0], this.#entries[i][1]];
  }

  forEach(callback, thisArgument = undefined) {
    requireArguments(arguments.length, 1, "FormData.forEach");
    if (typeof callback !== "function") throw new TypeError("FormData.forEach: parameter 1 is not a function.");
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

platformClass(FormData, "FormData");
Object.defineProperty(FormData.prototype, Symbol.iterator, {
  value: FormData.prototype.entries,
  writable: true,
  configurable: true,
});

/** Whether `value` is a FormData. */
export const isFormData = (value) => typeof value === "object" && value !== null && entriesOf(value) !== null;

const escapeName = (text) => text.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");
const lineBreaks = (text) => text.replace(/\r\n?|\n/g, "\r\n");

/** The multipart body of a form. `{bytes, type}` */
export function encodeMultipart(form) {
  const random = Array.from(bridge.random(12), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const boundary = `----formdata-convex-${random}`;
  const parts = [];
  for (const [name, value] of entriesOf(form)) {
    const label = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(lineBreaks(name))}"`;
    if (typeof value === "string") {
      parts.push(`${label}\r\n\r\n${lineBreaks(value)}\r\n`);
    } else {
      const type = value.type === "" ? "application/octet-stream" : value.type;
      parts.push(`${label}; filename="${escapeName(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`, value, "\r\n");
    }
  }
  parts.push(`--${boundary}--\r\n`);
  return { bytes: blobBytes(new Blob(parts)), type: `multipart/form-data; boundary=${boundary}` };
}

/** The form in an application/x-www-form-urlencoded body. */
export function decodeUrlencoded(bytes) {
  const { URLSearchParams } = use("url");
  const form = new FormData();
  for (const [name, value] of new URLSearchParams(`&${utf8Decode(bytes)}`)) form.append(name, value);
  return form;
}

function find(bytes, pattern, from) {
  for (let at = bytes.indexOf(pattern[0], from); at >= 0; at = bytes.indexOf(pattern[0], at + 1)) {
    let i = 1;
    while (i < pattern.length && bytes[at + i] === pattern[i]) i++;
    if (i === pattern.length) return at;
  }
  return -1;
}

const unescapeName = (text) => text.replace(/%0A/gi, "\n").replace(/%0D/gi, "\r").replace(/%22/g, '"');

function disposition(text) {
  if (!/^form-data\s*(;|$)/i.test(text)) return null;
  const parameters = {};
  for (const [, key, quoted, bare] of text.matchAll(/;\s*([a-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))/gi)) {
    parameters[key.toLowerCase()] = quoted === undefined ? bare : unescapeName(quoted.replace(/\\(["\\])/g, "$1"));
  }
  return parameters.name === undefined ? null : parameters;
}

function malformed() {
  return new TypeError("Body cannot be decoded as form data");
}

function addPart(form, head, content) {
  const fields = new Map();
  for (const line of head.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) throw malformed();
    fields.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  const parameters = disposition(fields.get("content-disposition") ?? "");
  if (parameters === null) throw malformed();
  if (parameters.filename === undefined) {
    form.append(parameters.name, utf8Decode(content));
  } else {
    const type = (fields.get("content-type") ?? "text/plain").toLowerCase();
    form.append(parameters.name, fileOf(content.slice(), parameters.filename, type));
  }
}

/** The form in a multipart/form-data body. TypeError when it is malformed. */
export function decodeMultipart(bytes, boundary) {
  const form = new FormData();
  const delimiter = utf8Encode(`\r\n--${boundary}`);
  const opening = delimiter.subarray(2);
  const blankLine = utf8Encode("\r\n\r\n");
  let at = find(bytes, opening, 0);
  // A preamble may come before the first delimiter, which then stands at the start of a line.
  if (at > 0) {
    at = find(bytes, delimiter, 0);
    if (at >= 0) at += 2;
  }
  if (at < 0) throw malformed();
  at += opening.length;
  for (;;) {
    if (bytes[at] === 0x2d && bytes[at + 1] === 0x2d) return form;
    while (bytes[at] === 0x20 || bytes[at] === 0x09) at++;
    if (bytes[at] !== 0x0d || bytes[at + 1] !== 0x0a) throw malformed();
    at += 2;
    const headEnd = find(bytes, blankLine, at);
    if (headEnd < 0) throw malformed();
    const contentEnd = find(bytes, delimiter, headEnd + 2);
    if (contentEnd < 0) throw malformed();
    addPart(form, utf8Decode(bytes.subarray(at, headEnd)), bytes.subarray(headEnd + 4, Math.max(headEnd + 4, contentEnd)));
    at = contentEnd + delimiter.length;
  }
}

export { FormData };
