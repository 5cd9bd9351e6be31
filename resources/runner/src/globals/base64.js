// atob and btoa (HTML standard, forgiving base64).
import { requireArguments } from "./support/webidl.js";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const digits = new Int8Array(128).fill(-1);
for (let i = 0; i < 64; i++) digits[alphabet.charCodeAt(i)] = i;

function invalid(message) {
  const { DOMException } = use("dom_exception");
  return new DOMException(message, "InvalidCharacterError");
}

function atob(data) {
  requireArguments(arguments.length, 1, "atob");
  let text = String(data).replace(/[\t\n\f\r ]+/g, "");
  if (text.length % 4 === 0) text = text.replace(/==?$/, "");
  if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text)) throw invalid("Failed to decode base64");
  const parts = [];
  let piece = "";
  let bits = 0;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    value = ((value << 6) | digits[text.charCodeAt(i)]) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      piece += String.fromCharCode((value >> bits) & 255);
      if (piece.length >= 4096) {
        parts.push(piece);
        piece = "";
      }
    }
  }
  parts.push(piece);
  return parts.join("");
}

function btoa(data) {
  requireArguments(arguments.length, 1, "btoa");
  const text = String(data);
  const parts = [];
  let piece = "";
  for (let i = 0; i < text.length; i += 3) {
    const first = text.charCodeAt(i);
    const second = i + 1 < text.length ? text.charCodeAt(i + 1) : 0;
    const third = i + 2 < text.length ? text.charCodeAt(i + 2) : 0;
    if (first > 255 || second > 255 || third > 255) {
      throw invalid("The string to be encoded contains characters outside of the Latin1 range.");
    }
    const value = (first << 16) | (second << 8) | third;
    piece +=
      alphabet[value >> 18] +
      alphabet[(value >> 12) & 63] +
      (i + 1 < text.length ? alphabet[(value >> 6) & 63] : "=") +
      (i + 2 < text.length ? alphabet[value & 63] : "=");
    if (piece.length >= 4096) {
      parts.push(piece);
      piece = "";
    }
  }
  parts.push(piece);
  return parts.join("");
}

export { atob, btoa };
