// The modules of one deployment, on disk: DIRECTORY/modules/*.js, their maps beside them, DIRECTORY/node_modules. A process serves one deployment and
// one set of environment variables, so that module state and process.env never belong to another.
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { setModulesDirectory } from "./stacks.mjs";

let modules = null;

/**
 * @param {string} directory of the deployment's package
 * @param {Record<string, string>} env the user's environment variables
 */
export function prepare(directory, env) {
  if (modules !== null) return;
  modules = join(directory, "modules");
  setModulesDirectory(modules);
  process.chdir(modules);
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, {
    PATH: ["/usr/local/bin", "/usr/bin", "/bin"].join(delimiter),
    PWD: modules,
    LANG: "C.UTF-8",
    NODE_PATH: join(directory, "node_modules"),
    TMPDIR: join(directory, "tmp"),
    TZ: "UTC",
    ...env,
  });
  const file = join(modules, "index.js");
  // Bundles of CommonJS code ask for these.
  const module = { exports: {}, filename: file, id: file, loaded: true, paths: [join(directory, "node_modules")] };
  Object.assign(globalThis, { require: createRequire(file), module, exports: module.exports, __filename: file, __dirname: modules });
}

/** @returns {Promise<object>} the module's namespace; it is evaluated once in this process */
export async function load(path) {
  return await import(pathToFileURL(join(modules, path)).href);
}

/** `text` without the server's own directories. */
export function withoutDirectories(text) {
  return modules === null ? text : text.replaceAll(`${pathToFileURL(modules).href}/`, "").replaceAll(`${modules}/`, "");
}
