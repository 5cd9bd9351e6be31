// The byte streams of one call, between this process and Python: DATA and WINDOW frames (docs/internals.md section 7).
//
// A sender may be WINDOW_BYTES ahead of what the receiver says it has read, so neither side ever holds more than that of one stream. Streams to Python
// and from Python are numbered apart.
import { DATA, WINDOW } from "../frames.mjs";

export const WINDOW_BYTES = 128 * 1024;
/** The most bytes of one DATA frame: streams of many calls share the socket. */
const CHUNK_BYTES = 32 * 1024;

const end = '{"end":true}';

class Outgoing {
  room = WINDOW_BYTES;
  closed = false;
  wake = null;
}

class Incoming {
  chunks = [];
  bytes = 0;
  ended = false;
  error = null;
  wake = null;
}

export class Streams {
  #send;
  #outgoing = new Map();
  #incoming = new Map();

  /** @param {(kind: number, stream: number, meta: string, body: string | Uint8Array) => void} send */
  constructor(send) {
    this.#send = send;
  }

  #in(stream) {
    let found = this.#incoming.get(stream);
    if (found === undefined) this.#incoming.set(stream, (found = new Incoming()));
    return found;
  }

  #out(stream) {
    let found = this.#outgoing.get(stream);
    if (found === undefined) this.#outgoing.set(stream, (found = new Outgoing()));
    return found;
  }

  /** A DATA or WINDOW frame. */
  receive(kind, stream, meta, body) {
    if (kind === WINDOW) {
      const out = this.#out(stream);
      if (meta.closed === true) out.closed = true;
      else out.room += meta.bytes;
      out.wake?.();
      return;
    }
    const into = this.#in(stream);
    if (body.byteLength > 0) {
      into.chunks.push(body);
      into.bytes += body.byteLength;
    }
    if (meta.end === true || meta.error !== undefined) into.ended = true;
    if (meta.error !== undefined) into.error = new Error(meta.error);
    into.wake?.();
  }

  /**
   * What has arrived of a stream, at least one byte; null at its end.
   * @throws the sender's error, after all that came before it
   */
  async read(stream) {
    const into = this.#in(stream);
    while (into.bytes === 0 && !into.ended) {
      await new Promise((resolve) => {
        into.wake = resolve;
      });
    }
    if (into.bytes > 0) {
      const bytes = into.chunks.length === 1 ? into.chunks[0] : Buffer.concat(into.chunks, into.bytes);
      into.chunks = [];
      into.bytes = 0;
      if (!into.ended) this.#send(WINDOW, stream, `{"bytes":${bytes.byteLength}}`, "");
      return bytes;
    }
    if (into.error !== null) throw into.error;
    return null;
  }

  /** Wants no more of a stream from Python. */
  cancel(stream) {
    const into = this.#in(stream);
    into.chunks = [];
    into.bytes = 0;
    if (into.ended) return;
    into.ended = true;
    this.#send(WINDOW, stream, '{"closed":true}', "");
    into.wake?.();
  }

  /**
   * Sends bytes as the receiver grants room for them.
   * @returns {Promise<boolean>} whether the receiver wants no more
   */
  async write(stream, bytes) {
    const out = this.#out(stream);
    let at = 0;
    while (at < bytes.byteLength) {
      while (out.room <= 0 && !out.closed) {
        await new Promise((resolve) => {
          out.wake = resolve;
        });
      }
      if (out.closed) return true;
      const size = Math.min(bytes.byteLength - at, CHUNK_BYTES, out.room);
      this.#send(DATA, stream, "", bytes.subarray(at, at + size));
      out.room -= size;
      at += size;
    }
    return out.closed;
  }

  end(stream) {
    this.#send(DATA, stream, end, "");
  }

  fail(stream, message) {
    this.#send(DATA, stream, JSON.stringify({ error: message }), "");
  }
}
