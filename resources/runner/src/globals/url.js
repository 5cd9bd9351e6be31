// URL and URLSearchParams (URL standard), without the setters that the runtime leaves out.
import { URL as URLInterface, URLSearchParams as URLSearchParamsInterface } from "package:whatwg-url/webidl2js-wrapper.js";
import { notImplemented } from "./support/webidl.js";

// The package asks `eval` for an async generator, to find the prototype of async iterators; contexts refuse to make code from strings.
const registry = { Array, Object, Promise, String, TypeError, eval: () => async function* () {} };
URLInterface.install(registry, ["Window"]);
URLSearchParamsInterface.install(registry, ["Window"]);
const { URL, URLSearchParams } = registry;
// The bundler renames classes whose names are taken in an outer scope.
Object.defineProperty(URL, "name", { value: "URL", configurable: true });
Object.defineProperty(URLSearchParams, "name", { value: "URLSearchParams", configurable: true });

for (const name of ["host", "password", "username"]) {
  const descriptor = Object.getOwnPropertyDescriptor(URL.prototype, name);
  Object.defineProperty(URL.prototype, name, {
    ...descriptor,
    set() {
      notImplemented(`set ${name}`, "URL");
    },
  });
}

/** The text form of a URL, or null when it does not parse. */
export function parseUrl(text) {
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

export { URL, URLSearchParams };
