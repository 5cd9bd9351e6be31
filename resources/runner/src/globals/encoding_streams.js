// TextEncoderStream and TextDecoderStream (Encoding standard).
import { bufferSource, platformClass } from "./support/webidl.js";

const { TransformStream } = use("streams");
const { TextDecoder, utf8Encode } = use("encoding");

class TextDecoderStream {
  #decoder;
  #transform;

  constructor(label = "utf-8", options = undefined) {
    const decoder = new TextDecoder(label, options);
    this.#decoder = decoder;
    this.#transform = new TransformStream({
      transform(chunk, controller) {
        const text = decoder.decode(bufferSource(chunk, "TextDecoderStream: the chunk"), { stream: true });
        if (text !== "") controller.enqueue(text);
      },
      flush(controller) {
        const text = decoder.decode();
        if (text !== "") controller.enqueue(text);
      },
    });
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

  get readable() {
    return this.#transform.readable;
  }

  get writable() {
    return this.#transform.writable;
  }
}

class TextEncoderStream {
  #transform;

  constructor() {
    // A surrogate pair may be split between two chunks: its first half waits for the second.
    let pending = "";
    this.#transform = new TransformStream({
      transform(chunk, controller) {
        let text = pending + String(chunk);
        pending = "";
        if (text === "") return;
        const last = text.charCodeAt(text.length - 1);
        if (last >= 0xd800 && last <= 0xdbff) {
          pending = text.slice(-1);
          text = text.slice(0, -1);
        }
        if (text !== "") controller.enqueue(utf8Encode(text));
      },
      flush(controller) {
        if (pending !== "") controller.enqueue(utf8Encode(pending));
      },
    });
  }

  get encoding() {
    return "utf-8";
  }

  get readable() {
    return this.#transform.readable;
  }

  get writable() {
    return this.#transform.writable;
  }
}

platformClass(TextDecoderStream, "TextDecoderStream");
platformClass(TextEncoderStream, "TextEncoderStream");

export { TextDecoderStream, TextEncoderStream };
