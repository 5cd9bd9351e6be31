// What a "use node" module exports, for a push (runtime.md 1.5).
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runInThisContext } from "node:vm";
import { compileSourceMap, originalPosition } from "../sourcemaps.mjs";
import { describeFailure } from "./failures.mjs";
import { load, withoutDirectories } from "./modules.mjs";
import { within } from "./store.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const MAX_LINES = 100;
const tools = { quote: (value) => JSON.stringify(value), parseJson: JSON.parse, functionText: (value) => Function.prototype.toString.call(value) };
let analyse = null;

const read = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    return null;
  }
};

/** Handlers' positions by their source text, as for the modules of the other runtime (analyze.mjs). */
function positions(directory, path) {
  const source = read(join(directory, "modules", path));
  const mapText = read(join(directory, "modules", `${path}.map`));
  const map = mapText === null ? null : compileSourceMap(mapText);
  const from = new Map();
  return (text) => {
    if (map === null || text === null) return null;
    const at = source.indexOf(text, from.get(text) ?? 0);
    if (at < 0) return null;
    from.set(text, at + 1);
    const before = source.slice(0, at);
    const original = originalPosition(map, before.split("\n").length - 1, at - (before.lastIndexOf("\n") + 1));
    return original === null ? null : { path, start_lineno: original.line, start_col: original.column };
  };
}

function comparePositions(one, other) {
  if (one === null || other === null) return one === other ? 0 : one === null ? -1 : 1;
  return one.start_lineno - other.start_lineno || one.start_col - other.start_col;
}

/** Collects the console's lines, for the text of a failure. */
class Listener {
  done = false;
  stopwatches = new Map();
  texts = [];
  lines = {
    write: (level, messages) => {
      if (this.texts.push(`[${level}] ${messages.join(" ")}`) > MAX_LINES) this.texts.shift();
    },
  };

  /** Something has escaped the module's evaluation: fails the analysis. */
  fail = (error, as) => this.reject(new Escaped(describeFailure(error, as).message));
}

class Escaped extends Error {
  constructor(text) {
    super(text);
    this.text = text;
  }
}

/**
 * @param {string} directory of the package
 * @param {string} path of the module
 * @returns {Promise<{ok: true, result: string} | {ok: false, error: {code: string, message: string}}>}
 */
export async function analyseModule(directory, path) {
  analyse ??= runInThisContext(readFileSync(join(here, "..", "analysis.js"), "utf8"), { filename: "analysis.js" });
  const listener = new Listener();
  const failed = (code, message) => {
    const logged = listener.texts.length === 0 ? "" : `${message.endsWith("\n") ? "" : "\n"}\n${listener.texts.join("\n")}`;
    return { ok: false, error: { code, message: withoutDirectories(`Failed to analyze ${path}: ${message}${logged}`) } };
  };
  let namespace;
  try {
    const escaped = new Promise((_, reject) => (listener.reject = reject));
    namespace = await Promise.race([within(listener, true, () => load(path)), escaped]);
  } catch (error) {
    return failed("InvalidModules", error instanceof Escaped ? error.text : describeFailure(error).message);
  }
  const record = { namespace: () => namespace, find: (name) => (name in namespace ? () => namespace[name] : undefined) };
  let found;
  try {
    found = JSON.parse(within(listener, true, () => analyse(record, tools, "module", path)));
  } catch (error) {
    return failed("InvalidModules", describeFailure(error).message);
  }
  if (!found.ok) return failed(found.code, found.message);
  const at = positions(directory, path);
  const functions = found.functions.map(({ source, ...rest }) => ({ ...rest, pos: at(source) }));
  functions.sort((one, other) => comparePositions(one.pos, other.pos));
  return { ok: true, result: JSON.stringify({ functions }) };
}
