// Math.random and the source of all randomness: the keystream of ChaCha12.

function makeGenerator(hex) {
  const state = new NativeUint32Array(16);
  const block = new NativeUint32Array(16);
  state[0] = 0x61707865; state[1] = 0x3320646e; state[2] = 0x79622d32; state[3] = 0x6b206574;
  const digit = (i) => {
    const code = apply(charCodeAt, hex, [i]);
    return code <= 57 ? code - 48 : (code | 32) - 87;
  };
  for (let word = 0; word < 8; word++) {
    let sum = 0;
    for (let byte = 3; byte >= 0; byte--) sum = (sum << 8) | (digit(word * 8 + byte * 2) << 4) | digit(word * 8 + byte * 2 + 1);
    state[4 + word] = sum;
  }
  let used = 16;
  function refill() {
    for (let i = 0; i < 16; i++) block[i] = state[i];
    const turn = (a, b, c, d) => {
      block[a] += block[b]; let x = block[d] ^ block[a]; block[d] = (x << 16) | (x >>> 16);
      block[c] += block[d]; x = block[b] ^ block[c]; block[b] = (x << 12) | (x >>> 20);
      block[a] += block[b]; x = block[d] ^ block[a]; block[d] = (x << 8) | (x >>> 24);
      block[c] += block[d]; x = block[b] ^ block[c]; block[b] = (x << 7) | (x >>> 25);
    };
    for (let round = 0; round < 6; round++) {
      turn(0, 4, 8, 12); turn(1, 5, 9, 13); turn(2, 6, 10, 14); turn(3, 7, 11, 15);
      turn(0, 5, 10, 15); turn(1, 6, 11, 12); turn(2, 7, 8, 13); turn(3, 4, 9, 14);
    }
    for (let i = 0; i < 16; i++) block[i] += state[i];
    if (++state[12] === 0) ++state[13];
    used = 0;
  }
  const next32 = () => {
    if (used === 16) refill();
    return block[used++];
  };
  return {
    __proto__: null,
    next32,
    float() {
      const low = next32();
      const high = next32();
      return (high * 2097152 + (low >>> 11)) * 1.1102230246251565e-16;
    },
  };
}

let importGenerator = null;
let runGenerator = null;
function generator() {
  if (phase === "import") {
    if (importSeed === "") throw new NativeError(`Math.random unsupported ${where}`);
    importedRandom = true;
    return (importGenerator ??= makeGenerator(importSeed));
  }
  observedRandom = true;
  return (runGenerator ??= makeGenerator(seed));
}
const random = () => generator().float();
defineProperty(Math, "random", { __proto__: null, value: { random() { return random(); } }.random, writable: true, enumerable: false, configurable: true });
