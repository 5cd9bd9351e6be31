// crypto, Crypto, SubtleCrypto and CryptoKey (Web Cryptography API).
//
// Algorithms run on the host (src/host_ops/crypto.mjs). Keys stay there: a CryptoKey here holds an integer handle that is good for this run. A request is
// one host operation "crypto.<method>" with the arguments as JSON, in which {"$buffer": n} stands for the n-th buffer and {"$key": h} for a key.
import { bufferSource, copyBuffer, platformClass, requireArguments, typedArrayName, viewBytes, notImplemented } from "./support/webidl.js";

const constructing = Symbol("constructing");
const refusedWhat = "cryptographic randomness";
let handleOf;

class CryptoKey {
  #handle;
  #type;
  #extractable;
  #algorithm;
  #usages;

  static {
    handleOf = (value) => (typeof value === "object" && value !== null && #handle in value ? value.#handle : null);
  }

  constructor(key, fields) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
    this.#handle = fields.handle;
    this.#type = fields.type;
    this.#extractable = fields.extractable;
    this.#algorithm = fields.algorithm;
    this.#usages = fields.usages;
  }

  get type() {
    return this.#type;
  }

  get extractable() {
    return this.#extractable;
  }

  get algorithm() {
    return this.#algorithm;
  }

  get usages() {
    return this.#usages;
  }
}

/** JSON of an argument; buffers and keys inside are replaced by references. */
function encode(value, buffers) {
  const bytes = viewBytes(value);
  if (bytes !== null) return { $buffer: buffers.push(copyBuffer(bytes)) - 1 };
  const handle = handleOf(value);
  if (handle !== null) return { $key: handle };
  if (Array.isArray(value)) return value.map((item) => encode(item, buffers));
  if (typeof value === "object" && value !== null) {
    const plain = {};
    for (const key in value) {
      if (value[key] !== undefined) plain[key] = encode(value[key], buffers);
    }
    return plain;
  }
  return value;
}

function decode(value, buffers) {
  if (Array.isArray(value)) return value.map((item) => decode(item, buffers));
  if (typeof value !== "object" || value === null) return value;
  if ("$buffer" in value) return buffers[value.$buffer];
  if ("$bytes" in value) return new Uint8Array(buffers[value.$bytes]);
  if ("$key" in value) {
    const { $key, ...fields } = value;
    return new CryptoKey(constructing, { handle: $key, ...decode(fields, buffers) });
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item, buffers)]));
}

function translated(error) {
  const name = error?.errorName;
  if (name === undefined) return error;
  if (name === "TypeError") return new TypeError(error.message);
  const { DOMException } = use("dom_exception");
  return new DOMException(error.message, name);
}

async function request(method, args) {
  const buffers = [];
  const json = JSON.stringify(encode(args, buffers));
  let answer;
  try {
    answer = await bridge.hostOp(`crypto.${method}`, json, buffers);
  } catch (error) {
    throw translated(error);
  }
  return decode(JSON.parse(answer.json), answer.buffers);
}

/** An algorithm identifier as an object with a name. */
function algorithmOf(identifier, context) {
  if (typeof identifier === "string") return { name: identifier };
  if (typeof identifier !== "object" || identifier === null) throw new TypeError(`${context}: the algorithm is not an object.`);
  if (identifier.name === undefined) throw new TypeError(`${context}: the algorithm has no name.`);
  const plain = {};
  for (const key in identifier) plain[key] = identifier[key];
  plain.name = String(identifier.name);
  if (typeof plain.hash === "object" && plain.hash !== null) plain.hash = algorithmOf(plain.hash, context);
  return plain;
}

function keyOf(value, context) {
  if (handleOf(value) === null) throw new TypeError(`${context}: the key is not of type 'CryptoKey'.`);
  return value;
}

function refuseRandomness(applies) {
  if (applies) bridge.refuse(refusedWhat);
}

const named = (algorithm, ...names) => names.includes(algorithm.name.toUpperCase());

class SubtleCrypto {
  constructor(key) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
  }

  async digest(algorithm, data) {
    requireArguments(arguments.length, 2, "SubtleCrypto.digest");
    const context = "SubtleCrypto.digest";
    return request("digest", [algorithmOf(algorithm, context), bufferSource(data, context)]);
  }

  async sign(algorithm, key, data) {
    requireArguments(arguments.length, 3, "SubtleCrypto.sign");
    const context = "SubtleCrypto.sign";
    const parsed = algorithmOf(algorithm, context);
    const bytes = bufferSource(data, context);
    refuseRandomness(named(parsed, "ECDSA", "RSA-PSS"));
    return request("sign", [parsed, keyOf(key, context), bytes]);
  }

  async verify(algorithm, key, signature, data) {
    requireArguments(arguments.length, 4, "SubtleCrypto.verify");
    const context = "SubtleCrypto.verify";
    return request("verify", [
      algorithmOf(algorithm, context),
      keyOf(key, context),
      bufferSource(signature, context),
      bufferSource(data, context),
    ]);
  }

  async encrypt(algorithm, key, data) {
    requireArguments(arguments.length, 3, "SubtleCrypto.encrypt");
    const context = "SubtleCrypto.encrypt";
    const parsed = algorithmOf(algorithm, context);
    const bytes = bufferSource(data, context);
    refuseRandomness(named(parsed, "RSA-OAEP"));
    return request("encrypt", [parsed, keyOf(key, context), bytes]);
  }

  async decrypt(algorithm, key, data) {
    requireArguments(arguments.length, 3, "SubtleCrypto.decrypt");
    const context = "SubtleCrypto.decrypt";
    return request("decrypt", [algorithmOf(algorithm, context), keyOf(key, context), bufferSource(data, context)]);
  }

  async generateKey(algorithm, extractable, usages) {
    requireArguments(arguments.length, 3, "SubtleCrypto.generateKey");
    const parsed = algorithmOf(algorithm, "SubtleCrypto.generateKey");
    refuseRandomness(true);
    return request("generateKey", [parsed, Boolean(extractable), Array.from(usages, String)]);
  }

  async importKey(format, keyData, algorithm, extractable, usages) {
    requireArguments(arguments.length, 5, "SubtleCrypto.importKey");
    const context = "SubtleCrypto.importKey";
    const data = String(format) === "jwk" ? keyData : bufferSource(keyData, context);
    return request("importKey", [
      String(format),
      data,
      algorithmOf(algorithm, context),
      Boolean(extractable),
      Array.from(usages, String),
    ]);
  }

  async exportKey(format, key) {
    requireArguments(arguments.length, 2, "SubtleCrypto.exportKey");
    return request("exportKey", [String(format), keyOf(key, "SubtleCrypto.exportKey")]);
  }

  async deriveBits(algorithm, baseKey, length = null) {
    requireArguments(arguments.length, 2, "SubtleCrypto.deriveBits");
    const context = "SubtleCrypto.deriveBits";
    return request("deriveBits", [algorithmOf(algorithm, context), keyOf(baseKey, context), length]);
  }

  async deriveKey(algorithm, baseKey, derivedKeyType, extractable, usages) {
    requireArguments(arguments.length, 5, "SubtleCrypto.deriveKey");
    const context = "SubtleCrypto.deriveKey";
    return request("deriveKey", [
      algorithmOf(algorithm, context),
      keyOf(baseKey, context),
      algorithmOf(derivedKeyType, context),
      Boolean(extractable),
      Array.from(usages, String),
    ]);
  }

  wrapKey() {
    notImplemented("wrapKey", "SubtleCrypto");
  }

  unwrapKey() {
    notImplemented("unwrapKey", "SubtleCrypto");
  }
}

const integerArrays = new Set(
  "Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array BigInt64Array BigUint64Array".split(" "),
);
const hexadecimal = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

class Crypto {
  #subtle;

  constructor(key, subtle) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
    this.#subtle = subtle;
  }

  get subtle() {
    return this.#subtle;
  }

  getRandomValues(array) {
    requireArguments(arguments.length, 1, "Crypto.getRandomValues");
    this.#subtle;
    const { DOMException } = use("dom_exception");
    if (!ArrayBuffer.isView(array)) throw new TypeError("Crypto.getRandomValues: parameter 1 is not of type 'ArrayBufferView'.");
    if (!integerArrays.has(typedArrayName(array))) {
      throw new DOMException("The provided ArrayBufferView is not an integer array type", "TypeMismatchError");
    }
    if (array.byteLength > 65536) {
      throw new DOMException(
        `The ArrayBufferView's byte length (${array.byteLength}) exceeds the number of bytes of entropy available via this API (65536)`,
        "QuotaExceededError",
      );
    }
    viewBytes(array).set(bridge.random(array.byteLength));
    return array;
  }

  randomUUID() {
    this.#subtle;
    const bytes = bridge.random(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => hexadecimal[byte]).join("");
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
}

platformClass(CryptoKey, "CryptoKey");
platformClass(SubtleCrypto, "SubtleCrypto");
platformClass(Crypto, "Crypto");

/** The only instance. */
const crypto = new Crypto(constructing, new SubtleCrypto(constructing));

export { Crypto, CryptoKey, SubtleCrypto, crypto };
