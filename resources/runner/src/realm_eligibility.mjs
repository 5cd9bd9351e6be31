// Whether a module and all that it imports may be evaluated again and again in one context (src/realms.mjs). Judged at push.
//
// The script form of a module (src/transform.mjs) is a function inside a function: the outer one is called once per context, the inner one, with all of the
// module's code, once per run. What reaches the outer call, or outlives the inner one, is refused here.
import { parse } from "acorn";

const MAX_JUDGED = 1024;
const judged = new Map(); // hash -> text, "" when nothing speaks against the module

/** The first construct of a module that forbids evaluating it again, or "". */
function refusedConstruct(source) {
  const program = parse(source, { ecmaVersion: "latest", sourceType: "module", allowHashBang: true });
  const stack = [[program, false]]; // node, whether it has an `arguments` of its own
  while (stack.length > 0) {
    const [node, ownArguments] = stack.pop();
    if (node.type === "ImportExpression") return "import()";
    if (node.type === "MetaProperty" && node.meta.name === "import") return "import.meta";
    if (node.type === "Identifier" && node.name === "arguments" && !ownArguments) return "arguments outside of functions";
    const inner = ownArguments || node.type === "FunctionDeclaration" || node.type === "FunctionExpression";
    for (const field in node) {
      const child = node[field];
      if (Array.isArray(child)) {
        for (const one of child) if (one !== null && typeof one === "object" && typeof one.type === "string") stack.push([one, inner]);
      } else if (child !== null && typeof child === "object" && typeof child.type === "string") {
        stack.push([child, inner]);
      }
    }
  }
  return "";
}

function constructOf(modules, hash) {
  let found = judged.get(hash);
  if (found === undefined) {
    found = refusedConstruct(modules.text(hash));
    if (judged.size >= MAX_JUDGED) judged.delete(judged.keys().next().value);
    judged.set(hash, found);
  }
  return found;
}

/**
 * @param {import("./modules.mjs").ModuleStore} modules
 * @param {import("./modules.mjs").Plan} plan of the module
 * @returns {string} why its graph must be evaluated in a fresh context for each run, or ""
 */
export function refusalOfGraph(modules, plan) {
  const { nodes, order, cyclic } = plan.graph;
  if (cyclic.size > 0) return `${[...cyclic][0]}: import cycle`;
  for (const path of order) {
    const { hash, shape } = nodes.get(path);
    if (shape.awaits) return `${path}: top-level await`;
    const reassigned = shape.locals.find((one) => one.mutable);
    if (reassigned !== undefined) return `${path}: the export ${reassigned.exported} is assigned again`;
    const construct = constructOf(modules, hash);
    if (construct !== "") return `${path}: ${construct}`;
  }
  return "";
}

/**
 * Evaluates the graph once in a new context and compares the realm in full (its unhandled rejections are those of the analysis itself: the caller is within
 * its entry).
 * @param {import("./contexts.mjs").Context} context new
 * @param {(bridge: object) => void} begin calls `bridge.begin`
 * @returns {string} why its graph must be evaluated in a fresh context for each run, or ""
 */
export function refusalOfEvaluation(context, plan, begin) {
  const { bridge } = context;
  bridge.prepareRealm();
  begin(bridge);
  for (const { script } of plan.modules) bridge.addFactory(context.run(script));
  bridge.importModules(context.run(plan.program));
  context.drain();
  if (bridge.importState() !== 2 || bridge.settled() !== 0) return "evaluation fails when builtin functions are frozen";
  const difference = bridge.realmDifference();
  return difference === "" ? "" : `evaluation changes ${String(difference)}`;
}
