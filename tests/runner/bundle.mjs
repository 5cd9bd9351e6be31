// Bundles a function folder as the official CLI does (runtime.md 1.1).
// node bundle.mjs <esbuild package dir> <folder with convex/> <node_modules with convex> -> JSON {path: {source, sourceMap}} on stdout
import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
import { basename, extname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const [esbuildDirectory, project, nodeModules] = process.argv.slice(2);
const { build } = createRequire(pathToFileURL(join(esbuildDirectory, "package.json")))(esbuildDirectory);
const functions = join(project, "convex");

const names = readdirSync(functions, { recursive: true })
  .map(String)
  .filter((name) => [".ts", ".js"].includes(extname(name)) && !name.startsWith("_generated"));
const alone = names.filter((name) => ["schema", "auth.config", "convex.config"].includes(basename(name, extname(name))));
const entries = names.filter((name) => !alone.includes(name));

const options = {
  bundle: true,
  platform: "browser",
  format: "esm",
  target: "esnext",
  jsx: "automatic",
  outdir: "out",
  outbase: functions,
  conditions: ["convex", "module"],
  write: false,
  sourcemap: true,
  splitting: true,
  treeShaking: true,
  minifySyntax: true,
  minifyIdentifiers: true,
  minifyWhitespace: false,
  keepNames: true,
  define: { "process.env.NODE_ENV": '"production"' },
  nodePaths: [nodeModules],
  chunkNames: "_deps/[hash]",
  sourcesContent: false,
  absWorkingDir: project,
  logLevel: "error",
};
const result = {};
async function add(points, splitting) {
  if (points.length === 0) return;
  const { outputFiles } = await build({ ...options, splitting, entryPoints: points.map((name) => join(functions, name)) });
  for (const { path, text } of outputFiles) {
    const name = relative(join(project, "out"), path).split("\\").join("/");
    if (name.endsWith(".map")) (result[name.slice(0, -4)] ??= {}).sourceMap = text;
    else (result[name] ??= {}).source = text;
  }
}
await add(entries, true);
for (const name of alone) await add([name], false);
process.stdout.write(JSON.stringify(result));
