// Tables and decoders of the legacy multi-byte encodings (Big5, EUC, GBK, Shift_JIS …), loaded when a TextDecoder asks for one.
import { createMultibyteDecoder } from "package:@exodus/bytes/multi-byte.js";

export { createMultibyteDecoder };
