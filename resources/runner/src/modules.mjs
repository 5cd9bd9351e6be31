// The modules that this child knows, by hash, and how a closure of them is linked.
//
// A vm.Script is compiled once for each (hash, path, form) and shared by all contexts. A closure is linked by a small program, itself a
// vm.Script, which is made once per closure: it calls the modules' functions in evaluation order and hands bindings from one to another.
import vm from "node:vm";
import { compileSourceMap } from "./sourcemaps.mjs";
import { missingModule, ORIGIN, resolveSpecifier, SpecifierError } from "./specifiers.mjs";
import { liveScript, ModuleSyntaxError, plainScript, readModule } from "./transform.mjs";

const MAX_PLANS = 512;

/** A closure that cannot be linked. `message` is complete; nothing of it was evaluated. */
export class LinkError extends Error {
  /** Path of the module with a syntax error, or undefined. */
  syntaxPath;
  /** `{path, line}` of the fault, lines from 1, or undefined. */
  location;
}

function lineAt(text, offset) {
  return text.slice(0, offset).split(/\r\n|[\n\r\u2028\u2029]/).length;
}

function linkError(message, path, line) {
  const error = new LinkError(message);
  error.location = { path, line };
  return error;
}

/**
 * @typedef {object} Plan a linked closure
 * @property {{path: string, script: vm.Script, name: string, map: {table: string, sources: string} | null}[]} modules in the order the program expects
 * @property {vm.Script} program evaluates to (record, factories, nameDefault) => Promise | undefined
 */

export class ModuleStore {
  #sources = new Map(); // hash -> {path, text, map, mapTable, shape, error, scripts}
  #plans = new Map(); // key -> Plan

  add(hash, path, text) {
    const known = this.#sources.get(hash);
    if (known === undefined) this.#sources.set(hash, { path, text, mapText: null, map: undefined, shape: null, scripts: new Map() });
  }

  addMap(hash, text) {
    const source = this.#sources.get(hash);
    if (source !== undefined && source.mapText === null) source.mapText = text;
  }

  forget(hashes) {
    for (const hash of hashes) this.#sources.delete(hash);
    this.#plans.clear();
  }

  has(hash) {
    return this.#sources.has(hash);
  }

  text(hash) {
    return this.#sources.get(hash)?.text;
  }

  /** The module's compiled source map, or null. */
  map(hash) {
    const source = this.#sources.get(hash);
    if (source === undefined) return null;
    if (source.map === undefined) source.map = source.mapText === null ? null : compileSourceMap(source.mapText);
    return source.map;
  }

  /** @returns {import("./transform.mjs").ModuleShape} @throws {import("./transform.mjs").ModuleSyntaxError} */
  shape(hash) {
    const source = this.#sources.get(hash);
    source.shape ??= readModule(source.text);
    return source.shape;
  }

  #script(hash, path, live) {
    const { scripts } = this.#sources.get(hash);
    const key = `${live ? "live" : "plain"} ${path}`;
    let script = scripts.get(key);
    if (script === undefined) {
      const { text, columnOffset } = (live ? liveScript : plainScript)(this.shape(hash));
      script = new vm.Script(text, { filename: ORIGIN + path, columnOffset });
      scripts.set(key, script);
    }
    return script;
  }

  /**
   * The plan that evaluates `root` and everything it imports, in a context where `evaluated` modules have been evaluated already.
   *
   * @param {string} root canonical path
   * @param {Record<string, string>} closure path -> hash
   * @param {(path: string) => boolean} evaluated
   * @returns {Plan}
   * @throws {LinkError}
   */
  plan(root, closure, evaluated = () => false) {
    const key = `${root}\n${JSON.stringify(closure)}`;
    const cached = this.#plans.get(key);
    const graph = cached?.graph ?? this.#graph(root, closure);
    const skipped = graph.order.filter(evaluated);
    if (cached !== undefined && skipped.length === 0) return cached;
    const plan = { graph, ...this.#compile(graph, closure, new Set(skipped)) };
    if (skipped.length === 0) {
      if (this.#plans.size >= MAX_PLANS) this.#plans.delete(this.#plans.keys().next().value);
      this.#plans.set(key, plan);
    }
    return plan;
  }

  /** Loads shapes, finds the evaluation order and the cycles. */
  #graph(root, closure) {
    const nodes = new Map(); // path -> {path, hash, shape, targets: Map(specifier -> path)}
    const has = (path) => Object.hasOwn(closure, path);
    const load = (path) => {
      const hash = has(path) ? closure[path] : undefined;
      if (hash === undefined || !this.#sources.has(hash)) {
        const error = new LinkError(missingModule(path));
        error.location = this.#importOf(nodes, path);
        throw error;
      }
      let shape;
      try {
        shape = this.shape(hash);
      } catch (error) {
        if (!(error instanceof ModuleSyntaxError)) throw error;
        const failure = new LinkError(`Uncaught SyntaxError: ${error.message}`);
        failure.syntaxPath = path;
        if (error.line !== undefined) failure.location = { path, line: error.line };
        throw failure;
      }
      const targets = new Map();
      for (const { specifier, start } of shape.requests) {
        try {
          targets.set(specifier, resolveSpecifier(specifier, path, has));
        } catch (error) {
          if (!(error instanceof SpecifierError)) throw error;
          const before = this.text(hash).slice(0, start).split("\n");
          throw linkError(`${ORIGIN}${path}:${before.length - 1}:${before.at(-1).length}: ${error.message}`, path, lineAt(this.text(hash), start));
        }
      }
      const node = { path, hash, shape, targets };
      nodes.set(path, node);
      return node;
    };
    // Depth first in source order of imports: post-order is evaluation order. Tarjan's low links find the cycles.
    const order = [];
    const cyclic = new Set();
    const entered = new Map(); // path -> number
    const stack = [];
    const visit = (path) => {
      const number = entered.size;
      entered.set(path, number);
      stack.push(path);
      let low = number;
      for (const target of load(path).targets.values()) {
        if (target === path) cyclic.add(path);
        else if (!entered.has(target)) low = Math.min(low, visit(target));
        else if (stack.includes(target)) low = Math.min(low, entered.get(target));
      }
      order.push(path);
      if (low === number) {
        const component = stack.splice(stack.indexOf(path));
        if (component.length > 1) for (const one of component) cyclic.add(one);
      }
      return low;
    };
    visit(root);
    return { root, nodes, order, cyclic };
  }

  /** Where the first import of `target` among the loaded modules is written. */
  #importOf(nodes, target) {
    for (const { path, hash, shape, targets } of nodes.values()) {
      const found = shape.requests.find(({ specifier }) => targets.get(specifier) === target);
      if (found !== undefined) return { path, line: lineAt(this.text(hash), found.start) };
    }
    return undefined;
  }

  /** ResolveExport of the language: where the binding `name` of `path` lives. null: missing, "ambiguous": twice through stars. */
  #resolve(nodes, path, name, seen = new Set()) {
    const key = `${path}\n${name}`;
    if (seen.has(key)) return null;
    seen.add(key);
    const { shape, targets } = nodes.get(path);
    const own = shape.locals.find((one) => one.exported === name);
    if (own !== undefined) {
      const imported = shape.imports.find((one) => one.local === own.local);
      if (imported === undefined) return { path, name: own.exported, mutable: own.mutable };
      const target = targets.get(imported.specifier);
      return imported.imported === null ? { path: target, name: null } : this.#resolve(nodes, target, imported.imported, seen);
    }
    const again = shape.reexports.find((one) => one.exported === name);
    if (again !== undefined) {
      const target = targets.get(again.specifier);
      return again.imported === null ? { path: target, name: null } : this.#resolve(nodes, target, again.imported, seen);
    }
    if (name === "default") return null;
    let found = null;
    for (const { specifier } of shape.stars) {
      const one = this.#resolve(nodes, targets.get(specifier), name, seen);
      if (one === null) continue;
      if (one === "ambiguous") return one;
      if (found === null) found = one;
      else if (found.path !== one.path || found.name !== one.name) return "ambiguous";
    }
    return found;
  }

  #names(nodes, path, seen = new Set()) {
    if (seen.has(path)) return new Set();
    seen.add(path);
    const { shape, targets } = nodes.get(path);
    const names = new Set([...shape.locals, ...shape.reexports].map((one) => one.exported));
    for (const { specifier } of shape.stars) {
      for (const name of this.#names(nodes, targets.get(specifier), seen)) if (name !== "default") names.add(name);
    }
    return names;
  }

  #compile(graph, closure, skipped) {
    const { nodes, order, cyclic } = graph;
    const index = new Map(order.map((path, i) => [path, i]));
    const name = (path) => `m${index.get(path)}`;
    const read = ({ path, name: exported }) =>
      exported === null ? `()=>${name(path)}.namespace()` : `()=>${name(path)}.thunks[${JSON.stringify(exported)}]()`;
    const lines = order.map((path) => `const ${name(path)}=record(${JSON.stringify(path)});`);

    const bindings = new Map(); // path -> [[local, target]]
    for (const path of order) {
      const { shape, targets } = nodes.get(path);
      const fault = (message, start) => linkError(message, path, lineAt(this.text(nodes.get(path).hash), start));
      const all = shape.imports.map(({ specifier, imported, local, start }) => {
        const target = targets.get(specifier);
        if (imported === null) return [local, { path: target, name: null }];
        const found = this.#resolve(nodes, target, imported);
        if (found === null) {
          throw fault(`Uncaught SyntaxError: The requested module '${specifier}' does not provide an export named '${imported}'`, start);
        }
        if (found === "ambiguous") {
          throw fault(`Uncaught SyntaxError: The requested module '${specifier}' contains conflicting star exports for name '${imported}'`, start);
        }
        return [local, found];
      });
      bindings.set(path, all);
      const resolved = [...this.#names(nodes, path)]
        .sort()
        .map((one) => [one, this.#resolve(nodes, path, one)])
        .filter(([, found]) => found !== null && found !== "ambiguous");
      if (!skipped.has(path)) {
        lines.push(`${name(path)}.resolve(()=>({__proto__:null,${resolved.map(([one, found]) => `[${JSON.stringify(one)}]:${read(found)}`).join(",")}}));`);
      }
    }

    const modules = [];
    const begin = [];
    const run = [];
    let awaits = false;
    for (const path of order) {
      if (skipped.has(path)) continue;
      const { hash, shape } = nodes.get(path);
      const mine = bindings.get(path);
      const live =
        cyclic.has(path) ||
        mine.some(([local, target]) => target.mutable || shape.assigned.has(local) || (cyclic.has(target.path) && index.get(target.path) >= index.get(path)));
      const m = name(path);
      const common = `(0,factories[${modules.length}])(${m}.register,${m}.dynamic,${m}.meta`;
      const wait = shape.awaits ? "await " : "";
      awaits ||= shape.awaits;
      if (live) {
        const getters = mine.map(([local, target]) => `${JSON.stringify(local)}:${read(target)}`).join(",");
        begin.push(`const g${modules.length}=${common},${m}.scope({__proto__:null,${getters}}));${wait}g${modules.length}.next();`);
        run.push(`${wait}g${modules.length}.next();`);
      } else {
        const values = mine.map(([, target]) => `,(${read(target)})()`).join("");
        run.push(`${wait}${common}${values});`);
      }
      if (shape.locals.some((one) => one.local === shape.defaultName)) {
        run.push(`nameDefault(${m}.thunks.default(),${JSON.stringify(shape.defaultName)});`);
      }
      modules.push({ path, name: ORIGIN + path, hash, script: this.#script(hash, path, live), map: this.map(hash) });
    }
    const text = `(${awaits ? "async " : ""}(record,factories,nameDefault)=>{"use strict";\n${[...lines, ...begin, ...run].join("\n")}\n})`;
    return { modules, program: new vm.Script(text, { filename: "runner:link" }) };
  }
}
