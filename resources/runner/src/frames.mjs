// The frame codec of docs/internals.md §7: a fixed head of 20 bytes, JSON meta, raw body.

export const PROTOCOL_VERSION = 1;

export const HELLO = 1;
export const MODULE = 2;
export const START = 3;
export const SYSCALL = 4;
export const SYSRESULT = 5;
export const RESULT = 6;
export const LOG = 7;
export const CANCEL = 8;
export const ANALYZE = 9;
export const ANALYZED = 10;
export const FORGET = 11;
export const DATA = 12;
export const WINDOW = 13;
export const HTTP = 14;

const HEAD_BYTES = 20;

/**
 * One frame as a Buffer.
 *
 * @param {number} kind
 * @param {number} call
 * @param {number} seq
 * @param {string} meta JSON text of an object, or "" for {}
 * @param {string} body text; sent as UTF-8 (lone surrogates become U+FFFD)
 */
export function encodeFrame(kind, call, seq, meta, body) {
  const metaBytes = meta === "" ? 0 : Buffer.byteLength(meta);
  const bodyBytes = body === "" ? 0 : Buffer.byteLength(body);
  const frame = Buffer.allocUnsafe(HEAD_BYTES + metaBytes + bodyBytes);
  frame.writeUInt32LE(kind, 0);
  frame.writeUInt32LE(call, 4);
  frame.writeUInt32LE(seq, 8);
  frame.writeUInt32LE(metaBytes, 12);
  frame.writeUInt32LE(bodyBytes, 16);
  if (metaBytes !== 0) frame.utf8Write(meta, HEAD_BYTES, metaBytes);
  if (bodyBytes !== 0) frame.utf8Write(body, HEAD_BYTES + metaBytes, bodyBytes);
  return frame;
}

/** The head and meta of a frame whose body, so many bytes, follows in a write of its own. */
export function encodeHead(kind, call, seq, meta, bodyBytes) {
  const frame = encodeFrame(kind, call, seq, meta, "");
  frame.writeUInt32LE(bodyBytes, 16);
  return frame;
}

/** Cuts a byte stream into frames. A frame's body is decoded to text, but for DATA, whose body is a Buffer. */
export class FrameDecoder {
  #chunks = [];
  #size = 0;
  #wanted = HEAD_BYTES;

  /**
   * @param {Buffer} chunk
   * @param {(kind: number, call: number, seq: number, meta: object, body: string | Buffer) => void} receive
   */
  feed(chunk, receive) {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size < this.#wanted) return;
    const data = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#size);
    let at = 0;
    this.#wanted = HEAD_BYTES;
    while (data.length - at >= HEAD_BYTES) {
      const metaBytes = data.readUInt32LE(at + 12);
      const bodyBytes = data.readUInt32LE(at + 16);
      const size = HEAD_BYTES + metaBytes + bodyBytes;
      if (data.length - at < size) {
        this.#wanted = size;
        break;
      }
      const metaAt = at + HEAD_BYTES;
      const meta = metaBytes === 0 ? {} : JSON.parse(data.utf8Slice(metaAt, metaAt + metaBytes));
      const bodyAt = metaAt + metaBytes;
      let body;
      if (data[at] === DATA) body = data.subarray(bodyAt, bodyAt + bodyBytes);
      else body = bodyBytes === 0 ? "" : data.utf8Slice(bodyAt, bodyAt + bodyBytes);
      receive(data[at], data.readUInt32LE(at + 4), data.readUInt32LE(at + 8), meta, body);
      at += size;
    }
    this.#chunks = at === data.length ? [] : [data.subarray(at)];
    this.#size = data.length - at;
  }
}
