// Stands in for @exodus/bytes/whatwg.js: URLs made by scripts are UTF-8, so the legacy encoders stay out of the group.
import { percentEncoder } from "package:@exodus/bytes/fallback/percent.js";

const { utf8Encode } = use("encoding");

export function percentEncodeAfterEncoding(encoding, input, percentEncodeSet, spaceAsPlus = false) {
  return percentEncoder(percentEncodeSet, spaceAsPlus)(utf8Encode(input));
}
