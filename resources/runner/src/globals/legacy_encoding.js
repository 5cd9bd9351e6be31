// Decoders for every encoding but UTF-8, with the table of labels: loaded when a TextDecoder asks for one.
import { TextDecoder as Decoder, normalizeEncoding, setMultibyte } from "package:@exodus/bytes/fallback/encoding.js";

setMultibyte((...args) => use("multibyte").createMultibyteDecoder(...args));

export { Decoder, normalizeEncoding };
