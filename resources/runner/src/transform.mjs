// An ES module's text as a classic script that evaluates to one function, with every line and column of the body where it was (F3).
//
// plain form: (function(){"use strict";return(REGISTER,DYNAMIC,META,…import locals)=>{REGISTER({…});BODY⏎}})()
//   Imported bindings are parameters, read once. Right when the exporting module has been evaluated and never assigns that binding again.
// live form:  (function*(REGISTER,DYNAMIC,META,SCOPE){with(SCOPE)yield*(function*(){"use strict";REGISTER({…});yield;BODY⏎})()})
//   For import cycles and reassigned exports: SCOPE has a getter for each import local; the generator stops once, after its functions
//   are hoisted and before its body runs, as linking does before evaluation.
// With top-level await the plain form is an async arrow and the live form an async generator.
//
// REGISTER receives {exportName: () => local}. Both forms keep columns because import and export syntax is replaced by blanks of the same width and the
// header goes before column 0 (`columnOffset`).
import { parse } from "acorn";

/** A syntax error in a module, with acorn's words. */
export class ModuleSyntaxError extends Error {
  /** From 1, or undefined. */
  line;
}

/**
 * @typedef {object} ModuleShape what a module imports and exports
 * @property {{specifier: string, start: number, imported: string | null, local: string}[]} imports imported null: the namespace
 * @property {{specifier: string, start: number, imported: string | null, exported: string}[]} reexports imported null: the namespace
 * @property {{specifier: string, start: number}[]} stars `export * from`
 * @property {{exported: string, local: string, mutable: boolean}[]} locals
 * @property {{specifier: string, start: number}[]} requests every static specifier in source order
 * @property {string[]} dynamic constant specifiers of import()
 * @property {boolean} awaits has top-level await
 * @property {string} body the blanked text
 * @property {string} dynamicName
 * @property {string} metaName
 * @property {string} registerName
 * @property {string} scopeName
 * @property {string} defaultName local name of an anonymous default export
 * @property {Set<string>} assigned identifiers that are assigned after their declaration, by name only
 */

const isFunction = (node) =>
  node.type === "FunctionDeclaration" || node.type === "FunctionExpression" || node.type === "ArrowFunctionExpression";

function patternNames(pattern, names) {
  switch (pattern.type) {
    case "Identifier":
      names.push(pattern.name);
      break;
    case "ObjectPattern":
      for (const property of pattern.properties) patternNames(property.type === "RestElement" ? property.argument : property.value, names);
      break;
    case "ArrayPattern":
      for (const element of pattern.elements) if (element !== null) patternNames(element, names);
      break;
    case "AssignmentPattern":
      patternNames(pattern.left, names);
      break;
    case "RestElement":
      patternNames(pattern.argument, names);
      break;
  }
  return names;
}

function unusedName(source, width, first) {
  for (let i = 0; ; i++) {
    const name = (first + i.toString(36)).padEnd(width, "_");
    if (name.length > width) throw new ModuleSyntaxError("This module uses too many generated names");
    if (!source.includes(name)) return name;
  }
}

const exportName = (node) => (node.type === "Literal" ? String(node.value) : node.name);
const key = (name) => (name === "__proto__" ? '["__proto__"]' : JSON.stringify(name));

/** "<!--", and "-->" at the start of a line, are comments in a classic script and errors in a module. */
function refuseHtmlComment(source, token) {
  const opens = source.startsWith("<!--", token.start) && token.end === token.start + 1;
  const closes = source.startsWith("-->", token.start) && token.end === token.start + 2 && /(^|[\n\r\u2028\u2029])\s*$/.test(source.slice(0, token.start));
  if (opens || closes) throw new ModuleSyntaxError("HTML comments are not allowed in modules");
}

/** Everything below the top level: dynamic imports, import.meta, assigned names, top-level await. */
function walk(root, visit) {
  const stack = [[root, 0]];
  while (stack.length > 0) {
    const [node, depth] = stack.pop();
    visit(node, depth);
    const inner = isFunction(node) || node.type === "PropertyDefinition" || node.type === "StaticBlock" ? depth + 1 : depth;
    for (const field in node) {
      const child = node[field];
      if (Array.isArray(child)) {
        for (const one of child) if (one !== null && typeof one === "object" && typeof one.type === "string") stack.push([one, inner]);
      } else if (child !== null && typeof child === "object" && typeof child.type === "string") {
        stack.push([child, inner]);
      }
    }
  }
}

/**
 * @param {string} source text of an ES module
 * @returns {ModuleShape}
 * @throws {ModuleSyntaxError}
 */
export function readModule(source) {
  let program;
  try {
    program = parse(source, {
      ecmaVersion: "latest",
      sourceType: "module",
      allowHashBang: true,
      onToken: source.includes("<!--") || source.includes("-->") ? (token) => refuseHtmlComment(source, token) : undefined,
    });
  } catch (error) {
    const failure = new ModuleSyntaxError(error.message.replace(/ \(\d+:\d+\)$/, ""));
    failure.line = error.loc?.line;
    throw failure;
  }
  const edits = []; // [start, end, text of the same width]
  const blank = (start, end) => {
    const text = source.slice(start, end).replace(/[^\n\r\u2028\u2029]/g, " ");
    edits.push([start, end, `;${text.slice(1)}`]);
  };
  if (source.startsWith("#!")) edits.push([0, 2, "//"]);

  const defaultName = unusedName(source, 3, "$d");
  const shape = { imports: [], reexports: [], stars: [], locals: [], requests: [], dynamic: [], awaits: false, assigned: new Set() };
  const declared = [];
  const request = (node) => {
    const found = { specifier: node.source.value, start: node.source.start };
    shape.requests.push(found);
    return found;
  };
  for (const node of program.body) {
    switch (node.type) {
      case "ImportDeclaration": {
        const from = request(node);
        for (const one of node.specifiers) {
          const imported = one.type === "ImportDefaultSpecifier" ? "default" : one.type === "ImportSpecifier" ? exportName(one.imported) : null;
          shape.imports.push({ ...from, imported, local: one.local.name });
        }
        blank(node.start, node.end);
        break;
      }
      case "ExportAllDeclaration": {
        const from = request(node);
        if (node.exported === null) shape.stars.push(from);
        else shape.reexports.push({ ...from, imported: null, exported: exportName(node.exported) });
        blank(node.start, node.end);
        break;
      }
      case "ExportNamedDeclaration":
        if (node.source !== null) {
          const from = request(node);
          for (const one of node.specifiers) shape.reexports.push({ ...from, imported: exportName(one.local), exported: exportName(one.exported) });
          blank(node.start, node.end);
        } else if (node.declaration !== null) {
          const { declaration } = node;
          const names =
            declaration.type === "VariableDeclaration"
              ? declaration.declarations.flatMap((one) => patternNames(one.id, []))
              : [declaration.id.name];
          for (const name of names) declared.push({ exported: name, local: name });
          blank(node.start, declaration.start);
        } else {
          for (const one of node.specifiers) declared.push({ exported: exportName(one.exported), local: exportName(one.local) });
          blank(node.start, node.end);
        }
        break;
      case "ExportDefaultDeclaration": {
        const { declaration } = node;
        const isDeclaration = declaration.type === "FunctionDeclaration" || declaration.type === "ClassDeclaration";
        if (isDeclaration && declaration.id !== null) {
          declared.push({ exported: "default", local: declaration.id.name });
          blank(node.start, declaration.start);
          break;
        }
        declared.push({ exported: "default", local: defaultName });
        // A hoisted function stays a declaration; anything else becomes a constant. "export default" is wide enough for both.
        const gap = source.slice(node.start, declaration.start);
        if (declaration.type === "FunctionDeclaration") {
          blank(node.start, declaration.start);
          const open = source.indexOf("(", declaration.start);
          const head = source.slice(declaration.start, open);
          const named = `${head.trimEnd()} ${defaultName}`;
          edits.push([declaration.start, open, named]);
        } else {
          edits.push([node.start, declaration.start, `const ${defaultName} =${gap.slice(11).replace(/[^\n\r\u2028\u2029]/g, " ")}`]);
        }
        break;
      }
    }
  }

  const registerName = unusedName(source, 3, "$x");
  const scopeName = unusedName(source, 3, "$s");
  const dynamicName = unusedName(source, 6, "$i");
  const metaName = unusedName(source, 6, "$m");
  walk(program, (node, depth) => {
    switch (node.type) {
      case "ImportExpression":
        edits.push([node.start, node.start + 6, dynamicName]);
        if (node.source.type === "Literal" && typeof node.source.value === "string") shape.dynamic.push(node.source.value);
        break;
      case "MetaProperty":
        if (node.meta.name === "import") edits.push([node.start, node.end, `${metaName}()`.padEnd(node.end - node.start)]);
        break;
      case "AwaitExpression":
        if (depth === 0) shape.awaits = true;
        break;
      case "ForOfStatement":
        if (depth === 0 && node.await) shape.awaits = true;
        if (node.left.type !== "VariableDeclaration") for (const name of patternNames(node.left, [])) shape.assigned.add(name);
        break;
      case "VariableDeclaration":
        if (depth === 0 && node.kind === "await using") shape.awaits = true;
        // A second `var` of the same name, or a loop variable, assigns.
        break;
      case "ForInStatement":
        if (node.left.type !== "VariableDeclaration") for (const name of patternNames(node.left, [])) shape.assigned.add(name);
        break;
      case "AssignmentExpression":
        for (const name of patternNames(node.left, [])) shape.assigned.add(name);
        break;
      case "UpdateExpression":
        if (node.argument.type === "Identifier") shape.assigned.add(node.argument.name);
        break;
    }
  });
  shape.locals = declared.map((one) => ({ ...one, mutable: shape.assigned.has(one.local) }));

  edits.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  let body = "";
  let at = 0;
  for (const [start, end, text] of edits) {
    if (start < at) continue; // inside a blanked region
    body += source.slice(at, start) + text;
    at = end;
  }
  return { ...shape, body: body + source.slice(at), dynamicName, metaName, registerName, scopeName, defaultName };
}

function register(shape) {
  // An export of an import is resolved by the linker; only own bindings have thunks.
  const imported = new Set(shape.imports.map((one) => one.local));
  const own = shape.locals.filter((one) => !imported.has(one.local));
  return `${shape.registerName}({__proto__:null,${own.map((one) => `${key(one.exported)}:()=>${one.local}`).join(",")}});`;
}

/** @returns {{text: string, columnOffset: number}} of the plain form */
export function plainScript(shape) {
  const parameters = [shape.registerName, shape.dynamicName, shape.metaName, ...shape.imports.map((one) => one.local)].join(",");
  const header = `(function(){"use strict";return ${shape.awaits ? "async" : ""}(${parameters})=>{${register(shape)}`;
  return { text: `${header}${shape.body}\n}})()`, columnOffset: -header.length };
}

/** @returns {{text: string, columnOffset: number}} of the live form */
export function liveScript(shape) {
  const star = shape.awaits ? "async function*" : "function*";
  const header = `(${star}(${shape.registerName},${shape.dynamicName},${shape.metaName},${shape.scopeName}){with(${shape.scopeName})yield*(${star}(){"use strict";${register(shape)}yield;`;
  return { text: `${header}${shape.body}\n})()})`, columnOffset: -header.length };
}
