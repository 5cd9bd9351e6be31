"use node";
// @ts-nocheck: the types of Node are not installed here
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { v } from "convex/values";
import { ConvexError } from "convex/values";
import ms from "ms";
import { api, internal } from "./_generated/api";
import { action, internalAction } from "./_generated/server";

declare const Convex: {
  syscall(op: string, args: string): string;
  asyncSyscall(op: string, args: string): Promise<string>;
};

let calls = 0;
let evaluated = "nothing";
try {
  void Convex.asyncSyscall("1.0/getUserIdentity", "{}").catch((error) => (evaluated = error.message));
} catch (error: any) {
  evaluated = `thrown: ${error.message}`;
}

export const hash = action({
  args: { text: v.string() },
  handler: async (_, { text }) => createHash("sha256").update(text).digest("hex"),
});

export const globals = action({
  args: {},
  handler: async () => {
    const g = globalThis as any;
    const os2 = g.require("node:os");
    return {
      types: ["require", "module", "exports", "__filename", "__dirname", "Buffer", "process", "global", "setImmediate", "queueMicrotask", "fetch"].map((name) => typeof g[name]),
      sameRequire: os2 === os || os2.EOL === os.EOL,
      evaluated: eval("6 * 7"),
      major: process.versions.node.split(".")[0],
      env: { user: process.env.MINE ?? null, cloud: process.env.CONVEX_CLOUD_URL ?? null, tz: process.env.TZ, path: process.env.PATH, names: Object.keys(process.env).sort() },
      uuid: randomUUID().length,
      imported: evaluated,
    };
  },
});

export const counts = action({ args: {}, handler: async () => ({ calls: ++calls, pid: process.pid }) });

export const parses = action({ args: { text: v.string() }, handler: async (_, { text }) => ms(text as "1d") });

export const files = action({
  args: { secret: v.string() },
  handler: async (_, { secret }) => {
    const file = path.join(os.tmpdir(), `${randomUUID()}.txt`);
    fs.writeFileSync(file, "kept");
    const attempt = (work: () => unknown) => {
      try {
        work();
        return "allowed";
      } catch (error: any) {
        return error.code as string;
      }
    };
    const found = {
      back: fs.readFileSync(file, "utf8"),
      program: execFileSync("/bin/echo", ["from a program"]).toString(),
      read: attempt(() => fs.readFileSync(secret)),
      write: attempt(() => fs.writeFileSync(`${secret}.copy`, "x")),
      ownCode: attempt(() => fs.writeFileSync(path.join(process.cwd(), "node.js"), "x")),
    };
    fs.unlinkSync(file);
    return found;
  },
});

export const calling = action({
  args: {},
  handler: async (ctx) => {
    await ctx.runMutation(internal.notes.addInternally, { text: "from node" });
    await ctx.runMutation(api.notes.add, { text: "again" });
    const job = await ctx.scheduler.runAfter(3_600_000, api.notes.add, { text: "later" });
    await ctx.scheduler.cancel(job);
    let caught = null;
    try {
      await ctx.runQuery(api.notes.fails, {});
    } catch (error: any) {
      caught = { convex: error instanceof ConvexError, code: error.data.code, message: error.message.split("\n")[0] };
    }
    return {
      notes: await ctx.runQuery(api.notes.list, {}),
      identity: await ctx.auth.getUserIdentity(),
      nested: await ctx.runAction(internal.node.inner, { text: "inner" }),
      size: await ctx.runQuery(api.notes.size, { text: "x".repeat(6_000_000) }),
      caught,
    };
  },
});

export const inner = internalAction({ args: { text: v.string() }, handler: async (_, { text }) => text.toUpperCase() });

export const nest = action({
  args: { depth: v.number() },
  handler: async (ctx, { depth }): Promise<string> => {
    if (depth === 0) return "bottom";
    return `${depth} ${await ctx.runAction(depth % 3 === 0 ? api.notes.bounce : api.node.nest, { depth: depth - 1 })}`;
  },
});

export const keeps = action({
  args: {},
  handler: async (ctx) => {
    const bytes = new Uint8Array(300_000).map((_, i) => i % 251);
    const id = await ctx.storage.store(new Blob([bytes], { type: "application/x-node" }));
    const back = await ctx.storage.get(id);
    const same = back !== null && Buffer.compare(Buffer.from(await back.arrayBuffer()), Buffer.from(bytes)) === 0;
    const url = await ctx.storage.getUrl(id);
    const fetched = await (await fetch(url!)).arrayBuffer();
    await ctx.storage.delete(id);
    return { type: back?.type, same, fetched: fetched.byteLength, gone: await ctx.storage.get(id) };
  },
});

export const searches = action({
  args: {},
  handler: async (ctx) => {
    try {
      await (ctx as any).vectorSearch("notes", "by_vector", { vector: [1], limit: 1 });
      return null;
    } catch (error: any) {
      return error.message as string;
    }
  },
});

export const logs = action({
  args: {},
  handler: async () => {
    console.log("it's", { a: 1, b: [1, 2] }, 42);
    console.debug(new Map([["k", 1]]));
    console.assert(false, "asserted");
    console.count();
    console.dir({ dropped: true });
    process.stdout.write("dropped\n");
    console.timeLog("none");
    console.error("é");
  },
});

export const talks = action({
  args: {},
  handler: async () => {
    console.log("first");
    await new Promise((resolve) => setTimeout(resolve, 1500));
    console.log("second");
  },
});

export const floods = action({
  args: { lines: v.number() },
  handler: async (_, { lines }) => {
    for (let i = 0; i < lines; i++) console.log(i);
  },
});

function thrower(): never {
  throw new TypeError("from node");
}
export const throws = action({ args: {}, handler: async () => thrower() });
export const throwsData = action({
  args: {},
  handler: async () => {
    throw new ConvexError({ code: 1n, text: "x" });
  },
});
export const stack = action({
  args: {},
  handler: async () => {
    const error = new RangeError("inside");
    return error.stack!.split("\n").slice(0, 2);
  },
});

export const rejects = action({
  args: {},
  handler: async () => {
    void Promise.reject(new Error("Yikes"));
    await new Promise((resolve) => setTimeout(resolve, 5000));
  },
});
export const escapes = action({
  args: {},
  handler: async () => {
    setTimeout(() => {
      throw new Error("Yikes");
    }, 1);
    await new Promise((resolve) => setTimeout(resolve, 5000));
  },
});
export const bomb = action({
  args: {},
  handler: async () => {
    setTimeout(() => {
      throw new Error("too late");
    }, 20);
    return process.pid;
  },
});
export const starts = action({ args: {}, handler: async () => spawn("/bin/sleep", ["1000"]).pid });
export const exits = action({
  args: {},
  handler: async () => {
    process.exit(3);
  },
});

export const leaves = action({
  args: {},
  handler: async (ctx) => {
    void ctx.runQuery(api.notes.list, {});
    return null;
  },
});

let left: (() => Promise<unknown>) | null = null;
export const leftover = action({
  args: {},
  handler: async (ctx) => {
    if (left !== null) {
      try {
        await left();
      } catch (error: any) {
        left = null;
        return error.message as string;
      }
    }
    left = async () => await ctx.runQuery(api.notes.list, {});
    return "first";
  },
});

export const syscalls = action({
  args: {},
  handler: async (ctx) => {
    const attempt = async (work: () => unknown) => {
      try {
        return String(await work());
      } catch (error: any) {
        return error.message as string;
      }
    };
    return [
      await attempt(() => Convex.syscall("1.0/queryStream", "{}")),
      await attempt(() => Convex.syscall("1.0/nothing", "{}")),
      await attempt(() => Convex.asyncSyscall("1.0/getUserIdentity", "{}")),
      await attempt(() => Convex.asyncSyscall("1.0/getUserIdentity", '{"requestId":"other"}')),
      await attempt(() => Convex.asyncSyscall("1.0/getTransactionMetrics", "{}")),
      await attempt(() => Convex.asyncSyscall("1.0/insert", '{"table":"notes","value":{}}')),
    ];
  },
});

export const crowds = action({
  args: {},
  handler: async (ctx) => {
    const all = await Promise.allSettled(Array.from({ length: 1001 }, () => ctx.runQuery(api.notes.size, { text: "x" })));
    const refused = all.filter((one) => one.status === "rejected");
    return refused.map((one) => (one as PromiseRejectedResult).reason.message as string);
  },
});

export const waits = action({
  args: { ms: v.number() },
  handler: async (_, { ms }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return process.pid;
  },
});

export const blocks = action({
  args: { ms: v.number() },
  handler: async (_, { ms }) => {
    const end = Date.now() + ms;
    while (Date.now() < end);
  },
});

export const spins = action({
  args: {},
  handler: async () => {
    for (;;);
  },
});

export const large = action({ args: { size: v.number() }, handler: async (_, { size }) => "x".repeat(size) });
export const takes = action({ args: { text: v.string() }, handler: async (_, { text }) => text.length });

export const grows = action({
  args: {},
  handler: async () => {
    const kept: number[][] = [];
    for (;;) kept.push(new Array(1_000_000).fill(0).map((_, i) => i));
  },
});

export const notAnAction = 5;
