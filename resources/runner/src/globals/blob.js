// Blob and File (File API). The parts are joined when the blob is made: blobs of functions are small.
import { bufferSource, copyBuffer, isArrayBuffer, notImplemented, platformClass, requireArguments } from "./support/webidl.js";

const { utf8Encode, utf8Decode } = use("encoding");

/** Let internal code make a Blob over bytes that nobody else writes. */
const owned = Symbol("owned");
let bytesOf;

function partBytes(part, endings) {
  if (isArrayBuffer(part)) return new Uint8Array(part);
  if (ArrayBuffer.isView(part)) return bufferSource(part, "Blob: a part");
  if (typeof part === "object" && part !== null && bytesOf(part) !== null) return bytesOf(part);
  if (typeof part === "string") return utf8Encode(endings === "native" ? part.replace(/\r\n?/g, "\n") : part);
  return notImplemented("constructor", "Blob", `part of type ${part === null ? "null" : typeof part}`);
}

function joined(parts) {
  if (parts.length === 1) return parts[0].slice();
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/** A media type as the standard keeps it: lower case, or empty when it holds something unprintable. */
const mediaType = (type) => (/[^ -~]/.test(type) ? "" : type.toLowerCase());

function clampIndex(value, size, fallback) {
  if (value === undefined) return fallback;
  const number = Math.trunc(Number(value)) || 0;
  return number < 0 ? Math.max(size + number, 0) : Math.min(number, size);
}

class Blob {
  #bytes;
  #type;

  static {
    bytesOf = (blob) => (#bytes in blob ? blob.#bytes : null);
  }

  constructor(parts = undefined, options = undefined) {
    if (parts === owned) {
      this.#bytes = options.bytes;
      this.#type = options.type;
      return;
    }
    if (parts !== undefined && (typeof parts !== "object" || parts === null || typeof parts[Symbol.iterator] !== "function")) {
      throw new TypeError("Blob: parameter 1 is not a sequence.");
    }
    const endings = options?.endings === undefined ? "transparent" : String(options.endings);
    if (endings !== "transparent" && endings !== "native") throw new TypeError(`Blob: '${endings}' is not a valid line ending.`);
    this.#bytes = joined(parts === undefined ? [] : Array.from(parts, (part) => partBytes(part, endings)));
    this.#type = options?.type === undefined ? "" : mediaType(String(options.type));
  }

  get size() {
    return this.#bytes.byteLength;
  }

  get type() {
    return this.#type;
  }

  slice(start = undefined, end = undefined, contentType = "") {
    const size = this.#bytes.byteLength;
    const from = clampIndex(start, size, 0);
    const to = clampIndex(end, size, size);
    return blobOf(this.#bytes.subarray(from, Math.max(from, to)), mediaType(String(contentType)));
  }

  stream() {
    const bytes = this.#bytes;
    const { ReadableStream } = use("streams");
    let offset = 0;
    return new ReadableStream({
      type: "bytes",
      pull(controller) {
        if (offset >= bytes.byteLength) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        const chunk = bytes.slice(offset, offset + 65536);
        offset += chunk.byteLength;
        controller.enqueue(chunk);
      },
    });
  }

  async text() {
    return utf8Decode(this.#bytes);
  }

  async arrayBuffer() {
    return copyBuffer(this.#bytes);
  }

  async bytes() {
    return this.#bytes.slice();
  }
}

class File extends Blob {
  #name;
  #lastModified;

  constructor(parts, name, options = undefined) {
    if (parts !== owned) requireArguments(arguments.length, 2, "File");
    super(parts, options);
    this.#name = String(name).toWellFormed();
    this.#lastModified = options?.lastModified === undefined ? bridge.now() : Math.trunc(Number(options.lastModified)) || 0;
  }

  get name() {
    return this.#name;
  }

  get lastModified() {
    return this.#lastModified;
  }
}

/** A Blob over `bytes`, which the caller gives away. */
export const blobOf = (bytes, type = "") => new Blob(owned, { bytes, type });

/** A File over `bytes`, which the caller gives away. */
export const fileOf = (bytes, name, type = "", lastModified = undefined) => new File(owned, name, { bytes, type, lastModified });

/** The bytes of a Blob (not to be written to), or null when `value` is not one. */
export const blobBytes = (value) => (typeof value === "object" && value !== null ? bytesOf(value) : null);

/** A copy for structuredClone, or null when `value` only looks like a Blob. */
export function cloneBlob(value) {
  const bytes = blobBytes(value);
  if (bytes === null) return null;
  return value instanceof File ? fileOf(bytes, value.name, value.type, value.lastModified) : blobOf(bytes, value.type);
}

platformClass(Blob, "Blob");
platformClass(File, "File");

export { Blob, File };
