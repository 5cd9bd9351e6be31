// TextEncoder and TextDecoder (Encoding standard), all labels.
import {
  TextDecoder as Decoder,
  TextEncoder as Encoder,
  normalizeEncoding,
  setMultibyte,
} from "package:@exodus/bytes/fallback/encoding.js";
import { utf8fromStringLoose, utf8toStringLoose } from "package:@exodus/bytes/utf8.js";
import { platformClass, viewBytes } from "./support/webidl.js";

setMultibyte((...args) => use("multibyte").createMultibyteDecoder(...args));

/** UTF-8 bytes of a string, lone surrogates replaced. */
export const utf8Encode = utf8fromStringLoose;
/** Text of UTF-8 bytes, malformed sequences replaced, a byte order mark kept. */
export const utf8DecodeWithoutBOM = utf8toStringLoose;

/** Text of UTF-8 bytes, malformed sequences replaced, one byte order mark at the start dropped. */
export function utf8Decode(bytes) {
  const marked = bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return utf8toStringLoose(marked ? bytes.subarray(3) : bytes);
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
    const encoding = normalizeEncoding(text);
    if (!encoding || encoding === "replacement") throw new RangeError(`The encoding label provided ('${text}') is invalid.`);
    this.#decoder = new Decoder(encoding, { fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM) });
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

class TextEncoder {
  #encoder = new Encoder();

  get encoding() {
    return "utf-8";
  }

  encode(input = "") {
    this.#encoder;
    return utf8fromStringLoose(String(input));
  }

  encodeInto(source, destination) {
    return this.#encoder.encodeInto(String(source), destination);
  }
}

platformClass(TextDecoder, "TextDecoder");
platformClass(TextEncoder, "TextEncoder");

export { TextDecoder, TextEncoder };
