// Runs a file of assertions inside a fresh context that holds the built globals over a scripted bridge.
//
//   node harness.mjs <dist> <assertions.js> [kind] [phase]
//
// Prints one JSON line: {"results": [{"name", "error"|null}], "fatal": [messages], "unhandled": [messages], "loaded": [groups]}. The assertions are the body of
// a function (test, assert, host): `test(name, async function)` adds a case; cases run one after another.
import { readFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import vm from "node:vm";
import { gzipSync } from "node:zlib";
import { makeContext, storage } from "./context.mjs";

const [dist, file, kind = "action", phase = "run"] = process.argv.slice(2);
const { hostOp, disposeCall } = await import(join(import.meta.dirname, "..", "..", "..", "resources", "runner", "src", "host_ops", "index.mjs"));
const { context, inside } = makeContext(dist, kind, phase);

const unhandled = [];
process.on("unhandledRejection", (reason) => unhandled.push(String(reason?.message ?? reason)));

// An entry runs as the host's own: no number of the context is left over from the entry before.
let pending = () => {};
context.__enter = () => pending();
const enter = new vm.Script("__enter()");
const run = (action) => {
  pending = action;
  storage.run(0, () => enter.runInContext(context));
};

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, "http://host");
  if (url.pathname === "/echo") {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ method: request.method, headers: request.headers, body: Buffer.concat(chunks).toString("latin1") }));
  } else if (url.pathname === "/redirect") {
    const left = Number(url.searchParams.get("left") ?? 0);
    response.statusCode = Number(url.searchParams.get("status") ?? 302);
    response.setHeader("location", left > 0 ? `/redirect?left=${left - 1}&status=${response.statusCode}` : "/echo");
    response.end();
  } else if (url.pathname === "/elsewhere") {
    response.writeHead(307, { location: `http://localhost:${server.address().port}/echo` }).end();
  } else if (url.pathname === "/duplex") {
    // The head leaves before the request has ended; each chunk comes back as it arrives.
    response.writeHead(200, { "set-cookie": ["a=1", "b=2"] });
    response.flushHeaders();
    request.on("data", (chunk) => response.write(chunk));
    request.on("end", () => response.end());
  } else if (url.pathname === "/hang") {
    response.writeHead(200);
    response.write("first");
  } else if (url.pathname === "/slow") {
    request.resume();
  } else if (url.pathname === "/cut") {
    response.writeHead(200, { "content-length": "1000" });
    response.write("part", () => request.socket.destroy());
  } else if (url.pathname === "/refuse") {
    request.socket.destroy();
  } else if (url.pathname === "/gzip") {
    response.writeHead(200, { "content-encoding": "gzip", "x-kept": "1" });
    response.end(gzipSync("squeezed".repeat(1000)));
  } else if (url.pathname === "/badgzip") {
    response.writeHead(200, { "content-encoding": "gzip" });
    response.end("not gzip at all");
  } else if (url.pathname === "/cutgzip") {
    response.writeHead(200, { "content-encoding": "gzip" });
    response.write(gzipSync("squeezed".repeat(1000)).subarray(0, 20), () => request.socket.destroy());
  } else if (url.pathname === "/large") {
    response.writeHead(200);
    for (let i = 0; i < 64; i++) if (!response.write(Buffer.alloc(65536, 97))) await new Promise((resolve) => response.once("drain", resolve));
    response.end();
  } else if (url.pathname === "/empty") {
    response.writeHead(204, { "x-latin": "caf\u00e9" }).end();
  } else response.writeHead(404).end("no such path");
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const source = readFileSync(file, "utf8");
const suite = vm.runInContext(`(async function (test, assert, host) {"use strict";${source}\n})`, context, { filename: file });
const callState = { kind };
const begun = process.hrtime.bigint();
run(() => {
  const host = { inspect: inside.inspect, syscall: inside.syscall, set: inside.set, base: `http://127.0.0.1:${server.address().port}`, fatal: inside.fatal, loaded: inside.loaded };
  inside.run(suite, host);
});

let finished = false;
function settle(id, answer) {
  run(() => {
    const buffers = inside.array();
    for (const bytes of answer.buffers) {
      const copy = inside.buffer(bytes.byteLength);
      copy.set(bytes);
      buffers.push(copy);
    }
    inside.deliver(id, answer.json, buffers);
  });
  sweep();
}
function sweep() {
  for (const [id, op, json, buffers] of inside.outbox.splice(0)) {
    if (op === "finished") finished = true;
    else if (op === "timer") setTimeout(() => { run(() => inside.fire(id)); sweep(); }, Number(json));
    else {
      hostOp(op, json, Array.from(buffers, (one) => new Uint8Array(one)), callState).then(
        (answer) => settle(id, answer),
        (error) => { run(() => inside.fail(id, error.message, error.errorName)); sweep(); },
      );
    }
  }
}
sweep();
const deadline = Date.now() + 15_000;
while (!finished && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2));
if (!finished) inside.results.push({ name: "deadline", error: "the cases did not end within 15 s" });
await new Promise((resolve) => setImmediate(resolve));
disposeCall(callState);
process.stdout.write(`${JSON.stringify({ results: inside.results, fatal: inside.fatal, unhandled, loaded: inside.loaded(), ms: Number(process.hrtime.bigint() - begun) / 1e6 })}\n`);
process.exit(0);
