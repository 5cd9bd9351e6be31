// Evaluates module graphs twice, as V8's own modules and by the runner's transform, and prints what each gave.
// node --experimental-vm-modules compare_modules.mjs <runner directory> < [{files: {path: text}, root}] > [{native, runner}]
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const runner = process.argv[2];
const { ModuleStore } = await import(pathToFileURL(join(runner, "src", "modules.mjs")));
const { resolveSpecifier } = await import(pathToFileURL(join(runner, "src", "specifiers.mjs")));
const graphs = JSON.parse(readFileSync(0, "utf8"));

const context = () => vm.createContext(vm.constants.DONT_CONTEXTIFY, { microtaskMode: "afterEvaluate" });
const drain = (inside) => vm.runInContext("0", inside);
// What user code can see of a namespace, as text. Runs inside the context.
const describe = `(namespace) => JSON.stringify(Object.entries(namespace).map(([key, value]) =>
  [key, typeof value === "function" ? [typeof value, value.name, value.length] : typeof value === "object" && value !== null && Object.prototype.toString.call(value) === "[object Module]" ? ["module", Object.keys(value)] : value === undefined ? "undefined" : value]))`;
const errorText = (error) => (error === null || typeof error !== "object" ? String(error) : `${error.name}: ${error.message}`);

async function native({ files, root }) {
  const inside = context();
  try {
    const modules = new Map();
    const load = (path) => {
      if (modules.has(path)) return modules.get(path);
      const module = new vm.SourceTextModule(files[path], { context: inside, identifier: `convex:/${path}` });
      modules.set(path, module);
      module.linkRequests(module.moduleRequests.map(({ specifier }) => load(resolveSpecifier(specifier, path))));
      return module;
    };
    const module = load(root);
    module.instantiate();
    const promise = module.evaluate();
    let settled = false;
    promise.then(() => (settled = true), () => (settled = true));
    drain(inside);
    await new Promise(setImmediate);
    if (module.status === "errored") return errorText(module.error);
    if (!settled) return "evaluating";
    return vm.runInContext(describe, inside)(module.namespace);
  } catch (error) {
    return errorText(error);
  }
}

function transformed({ files, root }) {
  const inside = context();
  const store = new ModuleStore();
  for (const [path, text] of Object.entries(files)) store.add(path, path, text);
  try {
    const plan = store.plan(root, Object.fromEntries(Object.keys(files).map((path) => [path, path])));
    const bridge = vm.runInContext(readFileSync(join(runner, "dist", "bridge.js"), "utf8"), inside)(() => 0, () => {}, {}, [], []);
    bridge.begin("analysis", "at import time", 0, "00".repeat(32), 0, "", "{}", "run", "{}");
    for (const { script } of plan.modules) bridge.addFactory(script.runInContext(inside));
    bridge.importModules(plan.program.runInContext(inside));
    drain(inside);
    if (bridge.settled() === 2) return bridge.failure().replace(/^Uncaught /, "");
    if (bridge.importState() !== 2) return "evaluating";
    const text = { value: "" };
    bridge.analyze("", root, vm.runInContext(`(record) => { globalThis.seen = (${describe})(record.namespace()); return ""; }`, inside));
    text.value = vm.runInContext("seen", inside);
    return text.value;
  } catch (error) {
    return errorText(error).replace(/^(Error|LinkError): Uncaught /, "");
  }
}

const results = [];
for (const graph of graphs) results.push({ native: await native(graph), runner: transformed(graph) });
process.stdout.write(JSON.stringify(results));
