// Push-time analysis of one module, schema, auth config or app definition (runtime.md 1.5-1.10, push.md 5-7).
//
// The module is evaluated by the same scripts as at run time; V8's own module parser is asked only for the words of syntax errors.
import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import vm from "node:vm";
import { CronError, readCrons } from "./crons.mjs";
import { LinkError } from "./modules.mjs";
import { refusalOfEvaluation, refusalOfGraph } from "./realm_eligibility.mjs";
import { renderError } from "./run.mjs";
import { originalPosition } from "./sourcemaps.mjs";
import { ORIGIN, resolveSpecifier } from "./specifiers.mjs";

const CPU_LIMIT_US = 4_000_000;
const REALM_CPU_LIMIT_US = 1_000_000; // judging reuse evaluates the module once more
const TIMEOUT_TEXT = "Function execution timed out (maximum duration: 4s)";
const MAX_LINES = 100;

const analysisScript = new vm.Script(readFileSync(join(dirname(fileURLToPath(import.meta.url)), "analysis.js"), "utf8"), {
  filename: "runner:analysis",
});

const settings = {
  module: { where: "at import time", rule: "run", clock: true },
  schema: { where: "when evaluating schema", rule: "refuse", clock: true },
  auth: { where: "when evaluating auth config file", rule: "auth", clock: false },
  app: { where: "when evaluating app definition", rule: "run", clock: false },
};

/** The one that has an interface like Run's: main.mjs enters it, then asks for its outcome a turn later. */
export class Analysis {
  #core;
  #meta;
  #context;
  #failure = null; // {code, message}
  #text = "";
  #realmRefusal = ""; // why the module's contexts serve one run each
  #cpuUs = 0;

  /** @param {object} meta of the ANALYZE frame: {what, path, modules, import_seed, import_ms, env, allow_env} */
  constructor(core, call, meta) {
    this.#core = core;
    this.#meta = { ...meta, module: meta.path ?? meta.module, closure: meta.modules ?? meta.closure };
    this.call = call;
    this.done = false;
    this.queued = false;
  }

  enter() {
    const before = process.threadCpuUsage();
    if (this.#meta.what === "typescript") this.#strip();
    else this.#evaluate(before);
    const used = process.threadCpuUsage(before);
    this.#cpuUs += used.user + used.system;
    return true;
  }

  #fail(message, code = "InvalidModules", location = undefined) {
    this.#failure ??= { code, message, location };
  }

  /** The module's text without its types, which become blanks: lines and columns stay. Syntax that makes code (enum, namespace) is refused. */
  #strip() {
    const { module: path, closure } = this.#meta;
    try {
      this.#text = JSON.stringify({ ok: true, text: JSON.stringify(stripTypeScriptTypes(this.#core.modules.text(closure[path]))) });
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      // Node has the line in the head of the stack only.
      const line = /^:(\d+)\n/.exec(error.stack)?.[1];
      this.#fail(`Uncaught SyntaxError: ${error.message}`, "InvalidModules", line && { path, line: Number(line) });
    }
  }

  #evaluate(before) {
    const meta = this.#meta;
    const { where, rule, clock } = settings[meta.what];
    let plan;
    try {
      plan = this.#core.modules.plan(meta.module, meta.closure);
    } catch (error) {
      if (error instanceof LinkError) this.#fail(this.#words(error), undefined, error.location);
      else if (error instanceof SyntaxError) this.#fail(`Uncaught SyntaxError: ${error.message}\n`);
      else throw error;
      return;
    }
    const context = this.#core.contexts.take();
    this.#context = context;
    const { bridge } = context;
    const begin = (one) =>
      one.begin(
        "analysis",
        where,
        clock ? (meta.import_ms ?? -1) : -1,
        clock ? (meta.import_seed ?? "") : "",
        0,
        "",
        JSON.stringify(meta.env ?? {}),
        meta.what === "app" && meta.allow_env === false ? "refuse" : rule,
        "{}",
      );
    begin(bridge);
    for (const { name, map, script } of plan.modules) {
      if (map !== null) bridge.addMap(name, map.table, map.sources);
      bridge.addFactory(context.run(script));
    }
    bridge.importModules(context.run(plan.program));
    context.drain();
    const state = bridge.importState();
    if (state === 1) this.#fail("Top-level awaits in source files are unsupported");
    if (state !== 2 || bridge.settled() !== 0) return;
    const text = bridge.analyze(meta.what, meta.module, context.run(analysisScript));
    context.drain();
    this.#text = typeof text === "string" ? text : "";
    if (meta.what === "module" && this.#text !== "") {
      const refusal = refusalOfGraph(this.#core.modules, plan);
      const used = process.threadCpuUsage(before);
      if (refusal !== "") this.#realmRefusal = refusal;
      else if (used.user + used.system > REALM_CPU_LIMIT_US) this.#realmRefusal = "evaluation takes too long to be judged";
      else this.#realmRefusal = refusalOfEvaluation(this.#core.contexts.take(), plan, begin);
    }
  }

  /** A link error's text; a syntax error in V8's words, which only its module parser knows. */
  #words(error) {
    if (error.syntaxPath === undefined || vm.SourceTextModule === undefined) {
      return error.message.startsWith("Uncaught") ? `${error.message}\n` : error.message;
    }
    try {
      const context = this.#core.contexts.take().raw;
      new vm.SourceTextModule(this.#core.modules.text(this.#meta.closure[error.syntaxPath]), {
        context,
        identifier: ORIGIN + error.syntaxPath,
      });
    } catch (syntax) {
      return `Uncaught SyntaxError: ${syntax.message}\n`;
    }
    return `${error.message}\n`;
  }

  unhandled(reason) {
    this.#context?.bridge.reject(reason);
  }

  answer() {}

  after() {
    const bridge = this.#context?.bridge;
    if (this.#cpuUs > CPU_LIMIT_US) this.#failure = { code: "InvalidModules", message: TIMEOUT_TEXT };
    const settled = bridge === undefined ? 0 : bridge.settled();
    if (settled >= 2) this.#fail(renderError(String(bridge.failure()), String(bridge.frames())), this.#codeOf(String(bridge.failure())));
    let result = "";
    if (this.#failure === null) result = this.#result();
    if (this.#failure !== null) this.#core.send(10, this.call, 0, JSON.stringify({ ok: false, error: this.#describeFailure() }), "");
    else this.#core.send(10, this.call, 0, '{"ok":true}', result);
    this.drop();
  }

  #codeOf(text) {
    if (this.#meta.what === "auth" && text.includes("is used in auth config file but its value was not set")) return "AuthConfigMissingEnvironmentVariable";
    return { module: "InvalidModules", schema: "InvalidSchema", auth: "InvalidAuthConfig", app: "InvalidConvexConfig" }[this.#meta.what];
  }

  #describeFailure() {
    const { code, message, location } = this.#failure;
    const prefix = this.#meta.what === "module" ? `Failed to analyze ${this.#meta.module}: ` : "";
    const lines = [];
    for (;;) {
      const line = this.#context?.bridge.nextLine() ?? "";
      if (line === "") break;
      const { level, messages } = JSON.parse(line);
      if (lines.push(`[${level}] ${messages.join(" ")}`) > MAX_LINES) lines.shift();
    }
    const logged = lines.length === 0 ? "" : `${message.endsWith("\n") ? "" : "\n"}\n${lines.join("\n")}`;
    return { code, message: `${prefix}${message}${logged}`, location };
  }

  #result() {
    const found = JSON.parse(this.#text);
    if (!found.ok) {
      this.#fail(found.message, found.code);
      return "";
    }
    if (this.#meta.what !== "module") return found.text;
    let cronSpecs = null;
    if (found.crons !== null) {
      try {
        cronSpecs = readCrons(found.crons);
      } catch (error) {
        if (!(error instanceof CronError)) throw error;
        this.#fail(error.message, "InvalidCron");
        return "";
      }
    }
    const bridge = this.#context.bridge;
    const { module: path, closure } = this.#meta;
    const shape = this.#core.modules.shape(closure[path]);
    const flags = Number(bridge.observed());
    const resolved = (specifiers, from = path) => {
      const paths = [];
      for (const specifier of specifiers) {
        try {
          paths.push(resolveSpecifier(specifier, from, (one) => Object.hasOwn(closure, one)));
        } catch {
          // A dynamic import that can never work fails when it is reached, not at push.
        }
      }
      return [...new Set(paths)];
    };
    const reached = (dynamic) => {
      const found = new Set([path]);
      for (const from of found) {
        let other;
        try {
          other = this.#core.modules.shape(closure[from]);
        } catch {
          // Only a dynamic import leads to a module that cannot be read; it fails when it is reached.
          continue;
        }
        const specifiers = other.requests.map((one) => one.specifier);
        for (const to of resolved(dynamic ? [...specifiers, ...other.dynamic] : specifiers, from)) {
          if (Object.hasOwn(closure, to) && this.#core.modules.has(closure[to])) found.add(to);
        }
      }
      return [...found].sort();
    };
    const at = this.#positions(path, closure[path]);
    const functions = found.functions.map(({ source, ...rest }) => ({ ...rest, pos: at(source) }));
    functions.sort((one, other) => comparePositions(one.pos, other.pos));
    return JSON.stringify({
      functions,
      httpRoutes: found.httpRoutes?.map(({ path: route, method, source }) => ({ route: { path: route, method }, pos: at(source) })) ?? null,
      cronSpecs,
      reuseContext: found.reuseContext,
      realmRefusal: this.#realmRefusal,
      closure: reached(false),
      dynamicClosure: reached(true),
      imports: resolved(shape.requests.map((one) => one.specifier)),
      dynamicImports: resolved(shape.dynamic),
      importTime: (flags & 4) !== 0,
      importRandom: (flags & 8) !== 0,
      env: JSON.parse(bridge.readNames()),
    });
  }

  /** A handler's position by its source text: the text is a slice of its own module, and of no other. Equal texts get successive places. */
  #positions(path, hash) {
    // The transformed text, as functions print themselves; it has the lines and columns of the original.
    const source = this.#core.modules.shape(hash).body;
    const map = this.#core.modules.map(hash);
    const from = new Map();
    return (text) => {
      if (map === null || text === null) return null;
      const at = source.indexOf(text, from.get(text) ?? 0);
      if (at < 0) return null;
      from.set(text, at + 1);
      const before = source.slice(0, at);
      const line = before.split("\n").length - 1;
      const original = originalPosition(map, line, at - (before.lastIndexOf("\n") + 1));
      return original === null ? null : { path, start_lineno: original.line, start_col: original.column };
    };
  }

  drop() {
    this.done = true;
    this.#context?.bridge.stop();
    this.#core.finished(this);
  }
}

function comparePositions(one, other) {
  if (one === null || other === null) return one === other ? 0 : one === null ? -1 : 1;
  return one.start_lineno - other.start_lineno || one.start_col - other.start_col;
}
