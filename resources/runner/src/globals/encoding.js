// TextEncoder and TextDecoder (Encoding standard). UTF-8 is here; the other encodings are a group of their own.
import { unfinishedBytes } from "package:@exodus/bytes/fallback/encoding.util.js";
import { utf8fromStringLoose, utf8toString, utf8toStringLoose } from "package:@exodus/bytes/utf8.js";
import { platformClass, viewBytes } from "./support/webidl.js";

/** UTF-8 bytes of a string, lone surrogates replaced. */
export const utf8Encode = utf8fromStringLoose;
/** Text of UTF-8 bytes, malformed sequences replaced, a byte order mark kept. */
export const utf8DecodeWithoutBOM = utf8toStringLoose;

const marked = (bytes) => bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;

/** Text of UTF-8 bytes, malformed sequences replaced, one byte order mark at the start dropped. */
export const utf8Decode = (bytes) => utf8toStringLoose(marked(bytes) ? bytes.subarray(3) : bytes);

/** A UTF-8 decoder that takes its input in pieces. */
class Utf8Decoder {
  encoding = "utf-8";
  #pending = null;
  #begun = false;

  constructor({ fatal, ignoreBOM }) {
    this.fatal = fatal;
    this.ignoreBOM = ignoreBOM;
  }

  decode(input, { stream }) {
    let bytes = input;
    if (this.#pending !== null) {
      bytes = new Uint8Array(this.#pending.length + input.length);
      bytes.set(this.#pending);
      bytes.set(input, this.#pending.length);
      this.#pending = null;
    }
    if (stream) {
      const unfinished = unfinishedBytes(bytes, bytes.length, "utf-8");
      if (unfinished > 0) {
        this.#pending = bytes.slice(bytes.length - unfinished);
        bytes = bytes.subarray(0, bytes.length - unfinished);
      }
    }
    const first = !this.#begun;
    this.#begun = stream && (this.#begun || bytes.length > 0);
    if (first && !this.ignoreBOM && marked(bytes)) bytes = bytes.subarray(3);
    return this.fatal ? utf8toString(bytes) : utf8toStringLoose(bytes);
  }
}

function decoderOf(label, options) {
  if (/^[\t\n\f\r ]*utf-?8[\t\n\f\r ]*$/i.test(label)) return new Utf8Decoder(options);
  const { Decoder, normalizeEncoding } = use("legacy_encoding");
  const encoding = normalizeEncoding(label);
  if (!encoding || encoding === "replacement") throw new RangeError(`The encoding label provided ('${label}') is invalid.`);
  return encoding === "utf-8" ? new Utf8Decoder(options) : new Decoder(encoding, options);
}

function dictionary(options, context) {
  if (options === undefined || options === null) return {};
  if (typeof options !== "object" && typeof options !== "function") {
    throw new TypeError(`${context}: options must be an object.`);
  }
  return options;
}

function sharedOrOwnBytes(input) {
  const bytes = viewBytes(input);
  if (bytes !== null) return bytes;
  if (typeof SharedArrayBuffer === "function" && input instanceof SharedArrayBuffer) return new Uint8Array(input);
  throw new TypeError("TextDecoder.decode: the input is not of type 'ArrayBuffer' or 'ArrayBufferView'.");
}

class TextDecoder {
  #decoder;

  constructor(label = "utf-8", options = undefined) {
    const text = String(label);
    const { fatal, ignoreBOM } = dictionary(options, "TextDecoder");
    this.#decoder = decoderOf(text, { fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM) });
  }

  get encoding() {
    return this.#decoder.encoding;
  }

  get fatal() {
    return this.#decoder.fatal;
  }

  get ignoreBOM() {
    return this.#decoder.ignoreBOM;
  }

  decode(input = undefined, options = undefined) {
    const { stream } = dictionary(options, "TextDecoder.decode");
    const bytes = input === undefined ? new Uint8Array(0) : sharedOrOwnBytes(input);
    try {
      return this.#decoder.decode(bytes, { stream: Boolean(stream) });
    } catch (error) {
      if (!this.#decoder.fatal || error instanceof RangeError) throw error;
      throw new TypeError("The encoded data is not valid.");
    }
  }
}

/** Bytes that a code point takes in UTF-8. */
function utf8Length(point) {
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  return point < 0x10000 ? 3 : 4;
}

class TextEncoder {
  #encoding = "utf-8";

  get encoding() {
    return this.#encoding;
  }

  encode(input = "") {
    this.#encoding;
    return utf8fromStringLoose(String(input));
  }

  encodeInto(source, destination) {
    this.#encoding;
    const text = String(source);
    if (!(destination instanceof Uint8Array)) {
      throw new TypeError("TextEncoder.encodeInto: parameter 2 is not of type 'Uint8Array'.");
    }
    let read = 0;
    let written = 0;
    while (read < text.length) {
      const point = text.codePointAt(read);
      const length = utf8Length(point);
      if (written + length > destination.length) break;
      if (length === 1) destination[written] = point;
      else destination.set(utf8fromStringLoose(String.fromCodePoint(point)), written);
      written += length;
      read += length === 4 ? 2 : 1;
    }
    return { read, written };
  }
}

platformClass(TextDecoder, "TextDecoder");
platformClass(TextEncoder, "TextEncoder");

export { TextDecoder, TextEncoder };
