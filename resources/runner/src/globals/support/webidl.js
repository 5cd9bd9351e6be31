// What Web IDL asks of every platform class, and the texts of members that this runtime leaves out.

/** What every class and prototype has without being a member. */
const implicit = ["constructor", "prototype", "length", "name"];

/**
 * Give a class the shape of a platform class: a string tag, enumerable members, and enumerable statics.
 * @returns the class
 */
export function platformClass(constructor, name) {
  for (const target of [constructor.prototype, constructor]) {
    const descriptors = Object.getOwnPropertyDescriptors(target);
    for (const key of implicit) delete descriptors[key];
    for (const key in descriptors) descriptors[key].enumerable = true;
    Object.defineProperties(target, descriptors);
  }
  // The bundler renames a class that its own body mentions.
  Object.defineProperty(constructor, "name", { value: name, configurable: true });
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: name, configurable: true });
  return constructor;
}

/** End the run: a member that the runtime does not have (runtime.md 6.2). `try` does not stop it. */
export function notImplemented(operation, className, extra) {
  const suffix = extra === undefined ? "" : `: ${extra}`;
  return bridge.fatal(
    `Not implemented: ${operation} for ${className}${suffix}. Consider calling an action defined in Node.js instead ` +
      "(https://docs.convex.dev/functions/actions).",
  );
}

/** Members of `className` that exist and end the run when they are read. */
export function unimplementedGetters(constructor, className, names) {
  for (const name of names) {
    Object.defineProperty(constructor.prototype, name, {
      get() {
        return notImplemented(`get ${name}`, className);
      },
      enumerable: true,
      configurable: true,
    });
  }
}

const typedArrayTag = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag).get;

/** "Uint8Array" and so on, or undefined: by internal slot, not by what the object claims. */
export const typedArrayName = (value) => typedArrayTag.call(value);

const byteLength = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, "byteLength").get;

/** Whether `value` is an ArrayBuffer, by internal slot. */
export function isArrayBuffer(value) {
  if (typeof value !== "object" || value === null) return false;
  try {
    byteLength.call(value);
    return true;
  } catch {
    return false;
  }
}

/** The bytes of a BufferSource as a Uint8Array over the same memory, or null when `value` is something else. */
export function viewBytes(value) {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (isArrayBuffer(value)) return new Uint8Array(value);
  return null;
}

/** As `viewBytes`, with the TypeError of Web IDL. */
export function bufferSource(value, context) {
  const bytes = viewBytes(value);
  if (bytes === null) throw new TypeError(`${context} is not of type 'ArrayBuffer' or 'ArrayBufferView'.`);
  return bytes;
}

/** A fresh ArrayBuffer with the bytes of a view. */
export const copyBuffer = (bytes) => bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);

/** The ArrayBuffer of a chunk that a body stream yielded. TypeError for anything but bytes. */
export function chunkBytes(chunk) {
  const bytes = viewBytes(chunk);
  if (bytes === null) throw new TypeError("Received non-Uint8Array chunk");
  return copyBuffer(bytes);
}

/** Start a host operation with the bytes of a chunk that a body stream yielded. TypeError for anything but bytes. */
export function sendChunk(name, json, chunk) {
  const bytes = viewBytes(chunk);
  if (bytes === null) throw new TypeError("Received non-Uint8Array chunk");
  return bridge.hostOp(name, json, [bytes.buffer], bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

/** Throw as a method does that got too few arguments. */
export function requireArguments(given, needed, context) {
  if (given < needed) {
    throw new TypeError(`${context}: ${needed} argument${needed === 1 ? "" : "s"} required, but only ${given} present.`);
  }
}

/** A byte string of Web IDL: every code unit is at most 255. */
export function byteString(value, context) {
  const text = String(value);
  if (/[^\0-\xff]/.test(text)) throw new TypeError(`${context} is not a valid ByteString.`);
  return text;
}
