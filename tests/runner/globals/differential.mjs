// Compares the globals with Node's own on generated inputs: node differential.mjs <dist> <seed> <count>. Prints a JSON array of differences.
import vm from "node:vm";
import { makeContext } from "./context.mjs";

const [dist, seed, count] = process.argv.slice(2);
const { context } = makeContext(dist, "query", "run");

let state = Number(seed) >>> 0;
const random = (n) => {
  // mulberry32
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
};
const pick = (list) => list[random(list.length)];
const many = (make, most) => Array.from({ length: random(most + 1) }, make);

// No user name or host of one letter: in the path of a file URL Node takes what starts with "u:" for a drive letter.
const schemes = ["http:", "https:", "HTTP:", "ftp:", "file:", "data:", "mailto:", "ws:", "foo:", "", "1:", "javascript:"];
const hosts = ["hh", "EXAMPLE.com", "a.b.c", "127.1", "0x7f000001", "256.1.1.1", "[::1]", "[1:2::3.4.5.6]", "[::g]", "münchen.de", "xn--mnchen-3ya.de", "a b", "%41%42", "日本。jp", "", "..", "a..b", "☃.net", "1.2.3.4.5", "hh%00"];
const pieces = ["a", "..", ".", "%2e", "%2E%2e", "b c", "é", "%zz", "\\", "😀", "\ud800", "'", '"', "<", "`", "{", "|", "^", "", ";x", "C:", "c|"];
const makeUrl = () =>
  `${pick(schemes)}${pick(["//", "/", "", "///", "\\\\"])}${pick(["", "", "us@", "us:p@", "us:p:q@", ":@"])}${pick(hosts)}${pick(["", ":80", ":443", ":0", ":65536", ":x", ":"])}` +
  `${many(() => pick(["/", "/", "\\"]) + pick(pieces), 4).join("")}${random(2) ? `?${many(() => pick(pieces), 3).join(pick(["&", "="]))}` : ""}${random(2) ? `#${pick(pieces)}` : ""}`;
const bases = ["http://h/a/b?c#d", "https://u:p@h:8/", "file:///C:/x/y", "foo://h/a/b", "foo:/a/b"];
const makeBytes = () => many(() => pick([0x41, 0x80, 0xbf, 0xc2, 0xc0, 0xe0, 0xa0, 0xed, 0xef, 0xbb, 0xbf, 0xf0, 0x90, 0xf4, 0x8f, 0xff, random(256)]), 12);
const text = () => many(() => pick(["a", "é", "€", "😀", "\ud83d", "\ude00", "\n", "=", "+", "A", "/", " "]), 10).join("");
// Not the multi-byte ones: ICU's tables, which Node uses, are not those of the standard.
const labels = ["utf-8", "utf-16le", "utf-16be", "windows-1251", "iso-8859-2", "koi8-u", "macintosh", "ibm866"];

/** Each makes an input, and the body of a function of it that returns something JSON can hold. */
const checks = {
  url: [
    () => [makeUrl(), random(2) ? pick(bases) : undefined],
    `const u = new URL(input[0], input[1] ?? undefined);
     return [u.href, u.origin, u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash, [...u.searchParams]];`,
  ],
  setters: [
    () => [`http://h/p?q#f`, pick(["href", "protocol", "hostname", "port", "pathname", "search", "hash"]), pick([...pieces, ...hosts, ...schemes, "8080", "?x", "#y"])],
    "const u = new URL(input[0]); u[input[1]] = input[2]; return u.href;",
  ],
  params: [
    // Node misreads text beyond ASCII beside a "%" that is no escape.
    () => many(() => pick(pieces.filter((piece) => piece !== "%zz")), 6).join(pick(["&", "=", "+"])),
    "const p = new URLSearchParams(input); p.append('z', 'é &'); p.sort(); return [p.toString(), [...p], p.size];",
  ],
  decode: [
    () => [makeBytes(), pick(labels), Boolean(random(2)), Boolean(random(2)), random(12)],
    `const d = new TextDecoder(input[1], {fatal: input[2], ignoreBOM: input[3]}); const b = new Uint8Array(input[0]);
     return [d.encoding, d.decode(b.subarray(0, input[4]), {stream: true}) + d.decode(b.subarray(input[4]))];`,
  ],
  encode: [text, "const t = new Uint8Array(7); return [[...new TextEncoder().encode(input)], new TextEncoder().encodeInto(input, t), [...t]];"],
  atob: [text, "return atob(input);"],
  btoa: [() => makeBytes().map((byte) => String.fromCharCode(byte)).join(""), "return [btoa(input), atob(btoa(input)) === input];"],
  headers: [
    () => many(() => [pick(["a", "B", "set-cookie", "x-y", "b"]), pick(["1", " 2 ", "\t3", "é"])], 6),
    "const h = new Headers(input); h.append('a', 'z'); h.set('b', 'y'); return [[...h], h.getSetCookie(), h.get('A')];",
  ],
};

const outcome = (run) => {
  try {
    return JSON.stringify(run());
  } catch (error) {
    return `threw ${error instanceof RangeError || error.name === "RangeError" ? "RangeError" : error.name}`;
  }
};
const differences = [];
for (const [name, [make, code]] of Object.entries(checks)) {
  const native = new Function("input", code);
  const ours = vm.runInContext(`(function (json) { const input = JSON.parse(json); ${code} })`, context);
  for (let i = 0; i < Number(count); i++) {
    const json = JSON.stringify(make() ?? null);
    const wanted = outcome(() => native(JSON.parse(json)));
    const got = outcome(() => ours(json));
    if (wanted !== got) differences.push({ name, input: json, wanted, got });
  }
}
process.stdout.write(JSON.stringify(differences));
