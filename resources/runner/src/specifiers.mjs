// Resolution of import specifiers against canonical module paths (runtime.md 1.2).

export const ORIGIN = "convex:/";

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
 * @returns {string} canonical path, ".js" added when absent
 * @throws {SpecifierError}
 */
export function resolveSpecifier(specifier, from) {
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
