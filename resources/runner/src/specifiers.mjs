// Resolution of import specifiers against canonical module paths (runtime.md 1.2).

export const ORIGIN = "convex:/";

/**
 * Where npm's library stands in a deployment that was made without a bundler (simple deploys): bare specifier -> module path. `build.mjs`
 * makes these modules.
 */
export const LIBRARY = { __proto__: null, "convex/server": "_deps/convex/server.js", "convex/values": "_deps/convex/values.js" };

/** A specifier that names no module; `code` as in runtime.md 1.2. */
export class SpecifierError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * The canonical path that `specifier` means in module `from`.
 *
 * @param {string} specifier as written
 * @param {string} from canonical path of the importing module
 * @param {(path: string) => boolean} has which modules there are; asked for modules of the library only
 * @returns {string} canonical path, ".js" added when absent
 * @throws {SpecifierError}
 */
export function resolveSpecifier(specifier, from, has = () => false) {
  if (specifier in LIBRARY && has(LIBRARY[specifier])) return LIBRARY[specifier];
  const isRelative = specifier.startsWith("/") || specifier.startsWith("./") || specifier.startsWith("../");
  let url;
  try {
    url = isRelative ? new URL(specifier, ORIGIN + from) : new URL(specifier);
  } catch {
    throw new SpecifierError(
      "BareSpecifier",
      `Relative import path ${JSON.stringify(specifier)} not prefixed with / or ./ or ../ from "${ORIGIN}${from}"`,
    );
  }
  if (url.protocol !== "convex:") {
    throw new SpecifierError("UnsupportedScheme", `Unsupported scheme (${url.protocol.slice(0, -1)}) in ${url.href}`);
  }
  if (url.host !== "") {
    throw new SpecifierError("UnsupportedAuthority", `Module URL ${url.href} must not have an authority. Has ${url.host}`);
  }
  if (!url.pathname.startsWith("/")) throw new SpecifierError("CannotBeABase", `Module URL ${url.href} cannot be a base`);
  const path = decodeURIComponent(url.pathname.slice(1));
  return path.endsWith(".js") ? path : `${path}.js`;
}

export const missingModule = (path) => `Couldn't find JavaScript module '${path}'. Did you forget to run \`npx convex dev\`?`;
