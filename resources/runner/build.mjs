// Builds dist/ from src/ and the packages of package-lock.json: `npm ci --ignore-scripts && node build.mjs`.
//
//   src/main.mjs          -> dist/main.mjs         one ES module for the host side, packages bundled in
//   src/bridge/*.js       -> dist/bridge.js        joined into one function expression, compiled inside each context
//   src/analysis.js       -> dist/analysis.js      copied: likewise
//   src/globals/<g>.js    -> dist/globals/<g>.js   one function expression (bridge, use) => exports, per group
//   src/globals/groups.json -> dist/globals.json   which group defines which global
//   npm convex            -> dist/library/*        its server modules as plain ES modules, for code that was deployed without a bundler
//   src/browser_client.mjs -> dist/browser/convex.js  npm's client as one file for pages, minified
//   (packages)            -> dist/THIRD_PARTY_NOTICES.txt
//
// The output depends on the inputs only (no dates, no absolute paths). dist/ is replaced as a whole, so a build that fails half way
// leaves the previous one in place.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { LIBRARY } from "./src/specifiers.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, "src");
const target = join(here, "dist");
const staging = join(here, `.dist-staging-${process.pid}`);

/** Paths of bundled input files, relative to here; their packages go into the notices. */
const bundled = new Set();

const common = {
  absWorkingDir: here,
  bundle: true,
  write: false,
  metafile: true,
  target: "node24",
  // One-byte text: half the memory of two-byte text, and faster to scan.
  charset: "ascii",
  legalComments: "none",
  logLevel: "warning",
};

// Packages look for faster host functions on the global object while they are loaded. Inside a context those names are our own lazy accessors (a
// loop) or belong to user code, so they see a global object of their own instead, with the one class that they share with scripts.
const packageGlobal = 'const packageGlobal={__proto__:null,get DOMException(){return use("dom_exception").DOMException}};';
/** Groups whose packages compare values with the real global object. */
const seesRealGlobal = new Set(["inspect"]);

/** Module replacements inside bundled packages: which file of which package, and what stands in for it. */
const replacements = [
  { importer: /whatwg-url/, specifier: /^\.\/encoding$/, file: "globals/vendor/utf8.js" },
  { importer: /whatwg-url/, specifier: /^@exodus\/bytes\/encoding\.js$/, file: "globals/vendor/empty.js" },
  { importer: /whatwg-url/, specifier: /^@exodus\/bytes\/whatwg\.js$/, file: "globals/vendor/percent-encode.js" },
  { importer: /whatwg-url/, specifier: /^tr46$/, file: "globals/vendor/idna.js" },
  { importer: /object-inspect/, specifier: /^\.\/util\.inspect$/, file: "globals/vendor/util-inspect.cjs" },
  { importer: /object-inspect/, specifier: /^\.\/stringWidth$/, file: "globals/vendor/string-width.cjs" },
];

const contextPackages = {
  name: "context-packages",
  setup(builder) {
    builder.onResolve({ filter: /.*/ }, ({ importer, path }) => {
      const found = replacements.find((one) => one.importer.test(importer) && one.specifier.test(path));
      return found && { path: join(source, found.file) };
    });
    // Tables as text: every child compiles all groups when it starts, and scanning a string is cheaper than parsing an object literal.
    builder.onLoad({ filter: /\.json$/ }, ({ path }) => {
      const text = JSON.stringify(JSON.parse(readFileSync(path, "utf8")));
      return { contents: `module.exports = JSON.parse(${JSON.stringify(text)});`, loader: "js" };
    });
    // "package:x/y.js" names a file of a package past its "exports" map.
    builder.onResolve({ filter: /^package:/ }, ({ path }) => ({ path: join(here, "node_modules", path.slice("package:".length)) }));
  },
};

function note(result) {
  for (const path of Object.keys(result.metafile.inputs)) bundled.add(path);
  return result.outputFiles[0].text;
}

async function buildGroup(name) {
  const code = note(
    await build({
      ...common,
      entryPoints: [join(source, "globals", `${name}.js`)],
      format: "cjs",
      platform: "neutral",
      mainFields: ["module", "main"],
      define: seesRealGlobal.has(name) ? {} : { globalThis: "packageGlobal" },
      minifySyntax: true,
      minifyWhitespace: true,
      plugins: [contextPackages],
    }),
  );
  // Without parentheses around it: they would make V8 compile the function when it is parsed, not when it is first called.
  return `function (bridge, use) {"use strict";${seesRealGlobal.has(name) ? "" : packageGlobal}const module={exports:{}};${code.trimEnd()}\nreturn module.exports;}`;
}

async function buildHost(entry) {
  return note(
    await build({
      ...common,
      entryPoints: [join(source, entry)],
      format: "esm",
      platform: "node",
      // CommonJS packages that ask for node built-ins need a require.
      banner: { js: 'import { createRequire as __createRequire } from "node:module";const require=__createRequire(import.meta.url);' },
    }),
  );
}

/**
 * Entry points of npm's `convex` for functions, with the code that they share in chunks of its own: classes and symbols must be the same in
 * all of them. `library.json` says which file stands at which module path.
 */
async function buildLibrary() {
  const { version } = JSON.parse(readFileSync(join(here, "node_modules", "convex", "package.json"), "utf8"));
  const result = await build({
    ...common,
    entryPoints: Object.fromEntries(Object.entries(LIBRARY).map(([specifier, path]) => [basename(path, ".js"), specifier])),
    outdir: "library",
    chunkNames: "chunk_[hash]",
    format: "esm",
    splitting: true,
    platform: "neutral",
    minifySyntax: true,
    minifyWhitespace: true,
  });
  for (const path of Object.keys(result.metafile.inputs)) bundled.add(path);
  const modules = {};
  for (const { path, text } of result.outputFiles) {
    const name = basename(path);
    output(`library/${name}`, text);
    modules[`${dirname(Object.values(LIBRARY)[0])}/${name}`] = `library/${name}`;
  }
  output("library.json", `${JSON.stringify({ version, modules }, null, 1)}\n`);
}

async function buildBrowserClient() {
  return note(
    await build({ ...common, entryPoints: [join(source, "browser_client.mjs")], format: "esm", platform: "browser", target: "es2021", minify: true }),
  );
}

function packageDirectory(path) {
  const parts = path.split("/");
  const at = parts.lastIndexOf("node_modules");
  if (at < 0) return null;
  return parts.slice(0, at + (parts[at + 1].startsWith("@") ? 3 : 2)).join("/");
}

function notices() {
  const directories = [...new Set([...bundled].map(packageDirectory).filter(Boolean))].sort();
  const chapters = directories.map((directory) => {
    const manifest = JSON.parse(readFileSync(join(here, directory, "package.json"), "utf8"));
    const files = readdirSync(join(here, directory)).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file)).sort();
    if (files.length === 0 && !manifest.license) throw new Error(`${manifest.name} states no licence`);
    const texts = files.map((file) => readFileSync(join(here, directory, file), "utf8").replace(/\r\n/g, "\n").trim());
    return [`${manifest.name} ${manifest.version} (${manifest.license})`, ...texts].join("\n\n");
  });
  return (
    "The files beside this one contain code of these packages.\n\n" +
    chapters.join(`\n\n${"-".repeat(80)}\n\n`) +
    "\n"
  );
}

/** The parts of the bridge share one scope: what one declares, later ones (and functions of earlier ones) use. */
const bridgeParts = [
  "primordials", "state", "random", "time", "refusals", "errors", "syscalls", "documents", "host_operations", "timers", "groups", "console", "environment",
  "realm", "modules", "realm_check", "entries",
];

function bridge() {
  const parts = bridgeParts.map((name) => readFileSync(join(source, "bridge", `${name}.js`), "utf8"));
  return `(function bridge(hostContextGet, hostContextSet, groups, lazyNames, jsSyscallNames) {\n"use strict";\n${parts.join("\n")}})\n`;
}

function output(name, text) {
  const path = join(staging, ...name.split("/"));
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

rmSync(staging, { recursive: true, force: true });
mkdirSync(staging, { recursive: true });

const groups = JSON.parse(readFileSync(join(source, "globals", "groups.json"), "utf8"));
const names = Object.keys(groups).sort();
const texts = await Promise.all(names.map(buildGroup));
names.forEach((name, i) => output(`globals/${name}.js`, texts[i]));
const manifest = { groups: {} };
for (const name of names) manifest.groups[name] = { file: `globals/${name}.js`, ...groups[name] };
output("globals.json", `${JSON.stringify(manifest, null, 1)}\n`);
for (const entry of ["main.mjs", "node/main.mjs"]) {
  if (existsSync(join(source, entry))) output(entry, await buildHost(entry));
}
cpSync(join(source, "analysis.js"), join(staging, "analysis.js"));
output("bridge.js", bridge());
await buildLibrary();
output("browser/convex.js", await buildBrowserClient());
output("THIRD_PARTY_NOTICES.txt", notices());

rmSync(target, { recursive: true, force: true });
renameSync(staging, target);
