// Bodies of requests and responses (Fetch standard, "body").
import { copyBuffer, notImplemented, viewBytes } from "./webidl.js";

const { utf8Decode, utf8Encode } = use("encoding");

const bodies = new WeakMap();

/** The body of a Request or Response, or null. */
export const bodyOf = (owner) => bodies.get(owner) ?? null;

/**
 * A body that arrives from outside. Whoever wants all of it needs no stream, which is dear to make.
 *
 * `read` gives a promise of the next bytes, null at the end; `cancel` says that no more is wanted.
 */
export class IncomingBody {
  constructor(read, cancel) {
    this.read = read;
    this.cancel = cancel;
  }

  stream() {
    const { ReadableStream } = use("streams");
    const { read, cancel } = this;
    return new ReadableStream(
      {
        type: "bytes",
        async pull(controller) {
          const chunk = await read();
          if (chunk !== null) {
            controller.enqueue(chunk);
            return;
          }
          controller.close();
          controller.byobRequest?.respond(0);
        },
        cancel,
      },
      { highWaterMark: 0 },
    );
  }
}

async function joined(read) {
  const chunks = [];
  let size = 0;
  for (let chunk = await read(); chunk !== null; chunk = await read()) {
    chunks.push(chunk);
    size += chunk.byteLength;
  }
  const all = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    all.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return all;
}

/** What a body was made from: bytes that are all there, a stream, or what arrives from outside. */
class Source {
  #bytes;
  #stream;
  #incoming;
  #used = false;

  /** @param type the Content-Type that goes with it, or null */
  constructor(bytes, stream, type, incoming = null) {
    this.#bytes = bytes;
    this.#stream = stream;
    this.#incoming = incoming;
    this.type = type;
  }

  get used() {
    return this.#used || (this.#stream !== null && disturbed(this.#stream));
  }

  get locked() {
    return this.#stream !== null && this.#stream.locked;
  }

  /** All bytes, when they are there and no stream was handed out; else null. */
  bytes() {
    return this.#stream === null ? this.#bytes : null;
  }

  stream() {
    this.#stream ??= this.#incoming === null ? streamOf(this.#bytes) : this.#incoming.stream();
    return this.#stream;
  }

  checkUnused() {
    if (this.used) throw new TypeError("body stream already read");
    if (this.locked) throw new TypeError("This stream has already been locked for exclusive reading by another reader");
  }

  /** Move the content into a new body; this one counts as read. */
  take() {
    this.checkUnused();
    this.#used = true;
    if (this.#stream === null) return new Source(this.#bytes, null, this.type, this.#incoming);
    const { TransformStream } = use("streams");
    const through = new TransformStream();
    const moved = this.#stream.pipeThrough(through);
    return new Source(null, moved, this.type);
  }

  /** A second body with the same content. */
  clone() {
    this.checkUnused();
    if (this.#stream === null && this.#incoming === null) return new Source(this.#bytes, null, this.type);
    const [first, second] = this.stream().tee();
    this.#stream = first;
    return new Source(null, second, this.type);
  }

  async consume() {
    this.checkUnused();
    this.#used = true;
    if (this.#stream === null) return this.#incoming === null ? this.#bytes : joined(this.#incoming.read);
    const reader = this.#stream.getReader();
    return joined(async () => {
      const { done, value } = await reader.read();
      if (done) return null;
      const bytes = viewBytes(value);
      if (bytes === null) {
        await reader.cancel();
        throw new TypeError("Received non-Uint8Array chunk");
      }
      return bytes;
    });
  }
}

/** Whether anything was read from a stream, or it was cancelled: the polyfill keeps that slot of the standard as a property. */
const disturbed = (stream) => stream._disturbed;

function streamOf(bytes) {
  const { ReadableStream } = use("streams");
  let sent = false;
  return new ReadableStream({
    type: "bytes",
    pull(controller) {
      if (!sent && bytes.byteLength > 0) {
        sent = true;
        controller.enqueue(bytes.slice());
        return;
      }
      controller.close();
      controller.byobRequest?.respond(0);
    },
  });
}

const isStream = (value) => typeof value === "object" && value !== null && value instanceof use("streams").ReadableStream;

/** The body that `value` stands for; null for null and undefined. Unknown kinds end the run (runtime.md 6.2). */
export function extractBody(value, className) {
  if (value === null || value === undefined) return null;
  if (value instanceof IncomingBody) return new Source(null, null, null, value);
  if (typeof value === "string") return new Source(utf8Encode(value), null, "text/plain;charset=UTF-8");
  const bytes = viewBytes(value);
  if (bytes !== null) return new Source(bytes.slice(), null, null);
  const { blobBytes } = use("blob");
  const content = blobBytes(value);
  if (content !== null) return new Source(content, null, value.type === "" ? null : value.type);
  const { encodeMultipart, isFormData } = use("form_data");
  if (isFormData(value)) {
    const encoded = encodeMultipart(value);
    return new Source(encoded.bytes, null, encoded.type);
  }
  const { URLSearchParams } = use("url");
  if (value instanceof URLSearchParams) {
    return new Source(utf8Encode(value.toString()), null, "application/x-www-form-urlencoded;charset=UTF-8");
  }
  if (isStream(value)) {
    if (value.locked || disturbed(value)) throw new TypeError(`${className}: the body stream is locked or was read already.`);
    return new Source(null, value, null);
  }
  return notImplemented("constructor", className, `body of type ${typeof value}`);
}

/** Give `owner` a body; its type becomes the Content-Type unless there is one. */
export function initializeBody(owner, source, headers) {
  if (source === null) return;
  bodies.set(owner, source);
  if (headers !== null && source.type !== null && !headers.has("content-type")) headers.set("content-type", source.type);
}

/** Members that Request and Response share. */
class Body {
  get body() {
    const source = bodyOf(this);
    return source === null ? null : source.stream();
  }

  get bodyUsed() {
    return bodyOf(this)?.used ?? false;
  }

  async arrayBuffer() {
    return copyBuffer(await consumed(this));
  }

  async blob() {
    const type = this.headers.get("content-type") ?? "";
    const bytes = await consumed(this);
    return use("blob").blobOf(bytes.slice(), type.toLowerCase());
  }

  async bytes() {
    return (await consumed(this)).slice();
  }

  async formData() {
    const type = this.headers.get("content-type") ?? "";
    if (/^\s*multipart\/form-data\s*(;|$)/i.test(type)) {
      bridge.refuse("formData()");
      const boundary = /;\s*boundary\s*=\s*(?:"([^"]*)"|([^;\s]*))/i.exec(type);
      if (boundary === null) throw new TypeError("Body cannot be decoded as form data");
      return use("form_data").decodeMultipart(await consumed(this), boundary[1] ?? boundary[2]);
    }
    if (/^\s*application\/x-www-form-urlencoded\s*(;|$)/i.test(type)) {
      return use("form_data").decodeUrlencoded(await consumed(this));
    }
    throw new TypeError("Body cannot be decoded as form data");
  }

  async json() {
    return JSON.parse(utf8Decode(await consumed(this)));
  }

  async text() {
    return utf8Decode(await consumed(this));
  }
}

async function consumed(owner) {
  const source = bodyOf(owner);
  return source === null ? new Uint8Array(0) : source.consume();
}

/** Give a class the members that Request and Response share. */
export function includeBody(constructor) {
  const members = Object.getOwnPropertyDescriptors(Body.prototype);
  delete members.constructor;
  Object.defineProperties(constructor.prototype, members);
}
