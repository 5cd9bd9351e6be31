// The same function in a module that allows its context to be used again.
export { read } from "./calls";
export const experimental_reuseContext = true;
