// The text of what was thrown, as callers see it (runtime.md 8.1 and 8.3).
import { isNativeError } from "node:util/types";
import { mappedFrames } from "./stacks.mjs";

const MAX_MESSAGE_BYTES = 65536;

/** A failure whose text is shown as it is, without frames. */
export class PlainFailure extends Error {}

const guarded = (get) => {
  try {
    return get();
  } catch {
    return undefined; // what a getter of user code throws while its error is described
  }
};

function thrownText(thrown) {
  if (typeof thrown !== "object" || thrown === null) return guarded(() => String(thrown)) ?? typeof thrown;
  if (guarded(() => thrown.toString) === Object.prototype.toString) {
    const name = guarded(() => thrown.constructor.name);
    return `#<${typeof name === "string" && name !== "" ? name : "Object"}>`;
  }
  return Array.isArray(thrown) ? "[object Array]" : (guarded(() => Object.prototype.toString.call(thrown)) ?? "[object Object]");
}

function cut(text) {
  const bytes = Buffer.from(text);
  if (bytes.length <= MAX_MESSAGE_BYTES) return text;
  let end = MAX_MESSAGE_BYTES;
  while (end > 0 && (bytes[end] & 0xc0) === 0x80) end--;
  return bytes.utf8Slice(0, end);
}

function render(message, frames) {
  const text = cut(message);
  if (!text.startsWith("Uncaught") && frames === "") return text;
  return frames === "" ? `${text}\n` : `${text}\n${frames}\n`;
}

/**
 * @param {unknown} thrown
 * @param {string} [as] a name that stands for the error's own: how it got away
 * @returns {{message: string, data: string}} rendered text, and the JSON text of a ConvexError's data or ""
 */
export function describeFailure(thrown, as) {
  if (thrown instanceof PlainFailure) return { message: thrown.message, data: "" };
  const isError = guarded(() => isNativeError(thrown) || thrown instanceof Error) === true;
  if (!isError) return { message: render(`Uncaught ${as === undefined ? "" : `${as}: `}${thrownText(thrown)}`, ""), data: "" };
  guarded(() => thrown.stack); // formats the frames now, if nobody has yet
  const frames = mappedFrames(thrown);
  const text = (get) => {
    const found = guarded(get);
    return found === undefined || found === null ? "" : (guarded(() => String(found)) ?? "");
  };
  const name = as ?? (guarded(() => thrown.name) === undefined ? "Error" : text(() => thrown.name));
  const message = text(() => thrown.message);
  let data = "";
  const symbol = guarded(() => thrown.ConvexErrorSymbol);
  if (typeof symbol === "symbol" && guarded(() => thrown[symbol]) === true) {
    const given = guarded(() => thrown.data);
    if (typeof given !== "string" || guarded(() => (JSON.parse(given), true)) !== true) {
      return { message: render(`ConvexError with invalid data: ${thrownText(given)}`, frames), data: "" };
    }
    data = given;
  }
  const head = name && message ? `Uncaught ${name}: ${message}` : name || message ? `Uncaught ${name || message}` : "Uncaught";
  return { message: render(head, frames), data };
}
