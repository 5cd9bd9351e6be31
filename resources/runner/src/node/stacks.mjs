// Stacks: what `error.stack` is inside "use node" code, and the mapped frames of errors that leave an action (runtime.md 8.2 and 11).
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { compileSourceMap, originalPosition } from "../sourcemaps.mjs";

const MAX_FRAMES = 100;
const sitesOf = new WeakMap(); // error -> what its frames were
const maps = new Map(); // file -> compiled map or null
let modules = ""; // directory of the modules, with a slash at the end

/** @param {string} directory where the modules are */
export function setModulesDirectory(directory) {
  modules = `${directory}/`;
}

/** The canonical path of a module by the file name or URL of a frame; null for any other file. */
function modulePath(file) {
  if (typeof file !== "string") return null;
  let path = file.split("?", 1)[0];
  if (path.startsWith("file:")) {
    try {
      path = fileURLToPath(path);
    } catch {
      return null; // not a file of ours
    }
  }
  return modules !== "/" && path.startsWith(modules) ? path.slice(modules.length) : null;
}

/** The name of a file as user code sees it. */
function shownFile(file) {
  const path = modulePath(file);
  if (path !== null) return `convex:/user/${path}`;
  return typeof file === "string" && file.startsWith("node:") ? file : "bundledFunctions.js";
}

function mapOf(path) {
  let map = maps.get(path);
  if (map === undefined) {
    let text = null;
    try {
      text = readFileSync(`${modules}${path}.map`, "utf8");
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
    map = text === null ? null : compileSourceMap(text);
    maps.set(path, map);
  }
  return map;
}

function describeSite(site) {
  return {
    file: site.getFileName(),
    line: site.getLineNumber(),
    column: site.getColumnNumber(),
    name: site.getFunctionName(),
    type: site.getTypeName(),
    method: site.getMethodName(),
    isConstructor: site.isConstructor(),
    isAsync: site.isAsync(),
    promiseAll: site.isPromiseAll() ? site.getPromiseIndex() : null,
  };
}

function nodeLine(site) {
  const where = `${shownFile(site.file)}:${site.line}:${site.column}`;
  const name = site.name || site.method;
  return name ? `    at ${site.isAsync ? "async " : ""}${name} (${where})` : `    at ${where}`;
}

/** Libraries parse `stack`: it is unmapped and looks as Node's does. */
function prepareStackTrace(error, sites) {
  const described = sites.slice(0, MAX_FRAMES).map(describeSite);
  let message = "";
  if (typeof error === "object" && error !== null) {
    sitesOf.set(error, described);
    message = error.message ?? "";
  }
  return [message === "" ? "Error" : `Error: ${message}`, ...described.map(nodeLine)].join("\n");
}

export function installStackHook() {
  Error.prepareStackTrace = prepareStackTrace;
}

function mappedName({ name, type, method, isConstructor }) {
  if (isConstructor) return `new ${name || "<anonymous>"}`;
  if (name) {
    const prefix = type && name.startsWith(type) ? `${type}.` : "";
    const suffix = method && name.endsWith(method) ? ` [as ${method}]` : "";
    return `${prefix}${name}${suffix}`;
  }
  if (method) return `${type}.${method}`;
  return type ? `${type}.<anonymous>` : "<anonymous>";
}

const isInternal = (file) => file.includes("udf-runtime/src") || file.includes("convex/src/server/impl");

/** The frames of `error` as callers see them: mapped, without those of the client library and of Node. */
export function mappedFrames(error) {
  const lines = [];
  let kept = 0; // up to the last that is not internal
  for (const site of sitesOf.get(error) ?? []) {
    const path = modulePath(site.file);
    const map = path === null ? null : mapOf(path);
    if (map === null) continue;
    let { line, column } = site;
    let file = `convex:/user/${path}`;
    // Looked up with the 1-based position as if it were 0-based (runtime.md 8.2).
    const found = originalPosition(map, line, column);
    if (found !== null && found.source !== undefined) ({ source: file, line, column } = found);
    const internal = isInternal(file);
    if (internal && kept === 0) continue;
    const all = site.promiseAll === null ? "" : `Promise.all (index ${site.promiseAll})`;
    lines.push(`    at ${site.isAsync ? "async " : ""}${all}${mappedName(site)} (${file}:${line}:${column})`);
    if (!internal) kept = lines.length;
  }
  return lines.slice(0, kept).join("\n");
}
