// structuredClone (HTML standard), without transfer.
import { copyBuffer, isArrayBuffer, requireArguments, typedArrayName } from "./support/webidl.js";

const getter = (prototype, name) => Object.getOwnPropertyDescriptor(prototype, name).get;

/** Checks by internal slot: each throws unless its receiver is of the kind, whatever its prototype says. */
const probes = {
  Boolean: (value) => Boolean.prototype.valueOf.call(value),
  Number: (value) => Number.prototype.valueOf.call(value),
  String: (value) => String.prototype.valueOf.call(value),
  BigInt: (value) => BigInt.prototype.valueOf.call(value),
  Date: (value) => Date.prototype.getTime.call(value),
  RegExp: (value) => getter(RegExp.prototype, "source").call(value),
  Map: (value) => getter(Map.prototype, "size").call(value),
  Set: (value) => getter(Set.prototype, "size").call(value),
  WeakMap: (value) => WeakMap.prototype.has.call(value, value),
  WeakSet: (value) => WeakSet.prototype.has.call(value, value),
  Symbol: (value) => Symbol.prototype.valueOf.call(value),
};

/** Objects of these tags keep state that a plain copy would lose. */
const refusedTags = new Set(
  (
    "AbortController AbortSignal AsyncFunction AsyncGenerator Event EventTarget FinalizationRegistry FormData Generator Headers Iterator " +
    "Performance Promise ReadableStream Request Response SubtleCrypto Crypto TextDecoder TextEncoder TransformStream URL URLSearchParams " +
    "WeakMap WeakRef WeakSet WritableStream Atomics JSON Math"
  ).split(" "),
);

const errorNames = new Set(["Error", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError"]);
const errorConstructors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

function holds(kind, value) {
  try {
    probes[kind](value);
    return true;
  } catch {
    return false;
  }
}

function refuse(value) {
  const { DOMException } = use("dom_exception");
  let label;
  if (typeof value === "object") label = `#<${value.constructor?.name || "Object"}>`;
  else label = String(value);
  throw new DOMException(`${label} could not be cloned.`, "DataCloneError");
}

const isError =
  typeof Error.isError === "function" ? Error.isError : (value) => Object.prototype.toString.call(value) === "[object Error]";

function cloneView(value, seen) {
  const buffer = clone(value.buffer, seen);
  const name = typedArrayName(value);
  if (name === undefined) return new DataView(buffer, value.byteOffset, value.byteLength);
  return new globalTypedArrays[name](buffer, value.byteOffset, value.length);
}

const globalTypedArrays = Object.fromEntries(
  [
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
    ...(typeof Float16Array === "function" ? [Float16Array] : []),
  ].map((constructor) => [constructor.name, constructor]),
);

function cloneError(value, seen) {
  const name = errorNames.has(value.name) ? value.name : "Error";
  const fresh = new errorConstructors[name]();
  seen.set(value, fresh);
  const message = Object.getOwnPropertyDescriptor(value, "message");
  if (message !== undefined && "value" in message) {
    Object.defineProperty(fresh, "message", { value: String(message.value), writable: true, configurable: true });
  }
  Object.defineProperty(fresh, "stack", { value: String(value.stack), writable: true, configurable: true });
  if (Object.hasOwn(value, "cause")) {
    Object.defineProperty(fresh, "cause", { value: clone(value.cause, seen), writable: true, configurable: true });
  }
  return fresh;
}

function cloneSpecial(value, seen) {
  if (holds("Date", value)) return new Date(probes.Date(value));
  if (Array.isArray(value)) return null;
  if (isArrayBuffer(value)) {
    if (value.detached) refuse(value);
    if (!value.resizable) return copyBuffer(new Uint8Array(value));
    const copy = new ArrayBuffer(value.byteLength, { maxByteLength: value.maxByteLength });
    new Uint8Array(copy).set(new Uint8Array(value));
    return copy;
  }
  if (ArrayBuffer.isView(value)) return cloneView(value, seen);
  if (holds("RegExp", value) && value !== RegExp.prototype) return new RegExp(probes.RegExp(value), value.flags);
  for (const kind of ["Boolean", "Number", "String", "BigInt"]) {
    if (holds(kind, value)) return Object(probes[kind](value));
  }
  if (holds("Symbol", value) || holds("WeakMap", value) || holds("WeakSet", value)) refuse(value);
  return null;
}

function copyProperties(value, copy, seen) {
  for (const key of Object.keys(value)) {
    Object.defineProperty(copy, key, {
      value: clone(value[key], seen),
      writable: true,
      enumerable: true,
      configurable: true,
    });
  }
  return copy;
}

function clone(value, seen) {
  if (typeof value === "symbol" || typeof value === "function") return refuse(value);
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const special = cloneSpecial(value, seen);
  if (special !== null) {
    seen.set(value, special);
    return special;
  }
  if (holds("Map", value)) {
    const copy = new Map();
    seen.set(value, copy);
    for (const [key, item] of [...Map.prototype.entries.call(value)]) copy.set(clone(key, seen), clone(item, seen));
    return copy;
  }
  if (holds("Set", value)) {
    const copy = new Set();
    seen.set(value, copy);
    for (const item of [...Set.prototype.values.call(value)]) copy.add(clone(item, seen));
    return copy;
  }
  if (isError(value)) return cloneError(value, seen);
  if (Array.isArray(value)) {
    const copy = new Array(value.length);
    seen.set(value, copy);
    return copyProperties(value, copy, seen);
  }
  const tag = Object.prototype.toString.call(value).slice(8, -1);
  if (tag === "Blob" || tag === "File") {
    const copy = use("blob").cloneBlob(value);
    if (copy !== null) {
      seen.set(value, copy);
      return copy;
    }
  }
  if (refusedTags.has(tag) && !Object.hasOwn(value, Symbol.toStringTag)) refuse(value);
  const copy = {};
  seen.set(value, copy);
  return copyProperties(value, copy, seen);
}

function structuredClone(value, options = undefined) {
  requireArguments(arguments.length, 1, "structuredClone");
  const transfer = options?.transfer;
  if (transfer !== undefined && [...transfer].length > 0) bridge.fatal("structuredClone with transfer not supported");
  return clone(value, new Map());
}

export { structuredClone };
