// Test only: what a hostile bundle would try once it had got out of its context. Prints one JSON object: attempt to "done: …" or an error code.
import childProcess from "node:child_process";
import crypto from "node:crypto";
import dgram from "node:dgram";
import dns from "node:dns";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import { Worker } from "node:worker_threads";

const { port, secret, udpPort, skip } = JSON.parse(fs.readFileSync(new URL("./targets.json", import.meta.url), "utf8"));
const once = (start, milliseconds = 5000) =>
  new Promise((resolve, reject) => {
    setTimeout(() => reject(Object.assign(new Error("timeout"), { code: "TIMEOUT" })), milliseconds);
    start(resolve, reject);
  });
const connect = (options) =>
  once((resolve, reject) => {
    const socket = net.connect(options, () => resolve("connected"));
    socket.on("error", reject);
  });

const attempts = {
  identity: () => ({ uid: process.getuid(), groups: process.getgroups(), cwd: process.cwd(), env: process.env }),
  tcp: () => connect({ host: "127.0.0.1", port }),
  unixSocket: () => connect("/tmp/convex-test-no-such-socket"),
  abstractSocket: () => connect("\0convex-test"),
  listen: () => once((resolve, reject) => net.createServer().on("error", reject).listen(0, "127.0.0.1", () => resolve("listening"))),
  listenUnix: () => once((resolve, reject) => net.createServer().on("error", reject).listen("\0convex-test-server", () => resolve("listening"))),
  udp: () =>
    once((resolve, reject) => {
      const socket = dgram.createSocket("udp4").on("error", reject);
      socket.send("x", udpPort, "127.0.0.1", (error) => (error ? reject(error) : resolve("sent")));
    }),
  dnsQuery: () => {
    const resolver = new dns.promises.Resolver({ timeout: 300, tries: 1 });
    resolver.setServers([`127.0.0.1:${udpPort}`]);
    return resolver.resolve4("example.com");
  },
  http: () =>
    once((resolve, reject) => {
      // Nobody answers: to be connected is enough.
      const request = http.get({ host: "127.0.0.1", port, path: "/" }).on("error", reject);
      request.on("socket", (socket) => socket.once("connect", () => resolve("connected")));
    }),
  readSecret: () => fs.readFileSync(secret, "utf8"),
  readPasswords: () => fs.readFileSync("/etc/shadow", "utf8"),
  parentEnvironment: () => fs.readFileSync(`/proc/${process.ppid}/environ`, "utf8"),
  parentMemory: () => fs.openSync(`/proc/${process.ppid}/mem`, "r+"),
  list: () => fs.readdirSync("/"),
  writeTemporary: () => fs.writeFileSync("/tmp/convex-test-written", "x"),
  writeBesideScript: () => fs.writeFileSync(new URL("./written", import.meta.url), "x"),
  removeSecret: () => fs.unlinkSync(secret),
  makeDirectory: () => fs.mkdirSync("/tmp/convex-test-directory"),
  signalParent: () => process.kill(process.ppid, 0),
  signalAll: () => process.kill(-1, 0),
  signalGroup: () => process.kill(0, 0),
  debugParent: () => process._debugProcess(process.ppid),
  becomeRoot: () => process.setuid(0),
  spawn: () => once((resolve, reject) => childProcess.spawn("/bin/true").on("error", reject).on("exit", resolve)),
  spawnSync: () => {
    const { error, status } = childProcess.spawnSync("/bin/true");
    if (error) throw error;
    return status;
  },
  worker: () => once((resolve, reject) => new Worker("", { eval: true }).on("error", reject).on("exit", resolve)),
  addon: () => process.dlopen({ exports: {} }, "/usr/lib/x.node"),
  inspector: async () => (await import("node:inspector")).open(0),
  // What must go on working.
  ownSignal: () => process.kill(process.pid, 0),
  threads: () => once((resolve, reject) => crypto.scrypt("a", "b", 16, (error, key) => (error ? reject(error) : resolve(key.length)))),
  wasm: async () => (await WebAssembly.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).instance !== undefined,
  atomics: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1),
  collect: () => {
    let kept = [];
    for (let i = 0; i < 200; i++) kept = [kept.slice(-20), new Array(10000).fill(i)];
    return kept.length;
  },
  localName: () => dns.promises.lookup("localhost"),
};

const results = {};
for (const [name, attempt] of Object.entries(attempts)) {
  if (skip.includes(name)) continue;
  try {
    results[name] = { done: (await attempt()) ?? null };
  } catch (error) {
    results[name] = { error: error.code ?? error.name };
  }
}
fs.writeSync(1, JSON.stringify(results));
process.exit(0);
