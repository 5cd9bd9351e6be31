// Stands in for @exodus/bytes/whatwg.js: URLs made by scripts are UTF-8, so the legacy encoders stay out of the group.
const { utf8Encode } = use("encoding");

const hexadecimal = Array.from({ length: 256 }, (_, byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`);
const tables = new Map();

/** What each byte becomes when the characters of `set` are encoded besides controls and everything past "~". */
function tableOf(set) {
  let table = tables.get(set);
  if (table === undefined) {
    table = hexadecimal.map((coded, byte) => {
      const character = String.fromCharCode(byte);
      return byte < 0x20 || byte > 0x7e || set.includes(character) ? coded : character;
    });
    tables.set(set, table);
  }
  return table;
}

/** https://url.spec.whatwg.org/#string-percent-encode-after-encoding, for UTF-8 */
export function percentEncodeAfterEncoding(encoding, input, percentEncodeSet, spaceAsPlus = false) {
  const table = tableOf(percentEncodeSet);
  let output = "";
  for (const byte of utf8Encode(input)) output += spaceAsPlus && byte === 0x20 ? "+" : table[byte];
  return output;
}
