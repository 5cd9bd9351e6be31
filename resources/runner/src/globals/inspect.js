// Rendering of one console argument (runtime.md 7.1).
import objectInspect from "object-inspect";

const options = { maxStringLength: 32768, indent: 2, customInspect: true };

/** @returns the text of one console argument */
export const inspect = (value) => objectInspect(value, options);
