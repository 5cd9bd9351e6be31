// Default-runtime actions: fetch, timers, dynamic import, what they leave behind.
import { v } from "convex/values";
import { api } from "./_generated/api";
import { action } from "./_generated/server";

export const shout = action({ args: { text: v.string() }, handler: async (_, { text }) => text.toUpperCase() });

const urlArgs = { url: v.string() };
const headersOf = (response: Response) => {
  const found: Record<string, string> = {};
  response.headers.forEach((value, name) => (found[name] = value));
  return found;
};
const caught = async (attempt: () => Promise<unknown>) => {
  try {
    return { value: await attempt() };
  } catch (error) {
    return { name: (error as Error).name, message: (error as Error).message };
  }
};

/** One fetch with whatever options, and what came of it. */
export const get = action({
  args: { ...urlArgs, init: v.optional(v.any()) },
  handler: async (_, { url, init }) =>
    caught(async () => {
      const response = await fetch(url, init);
      return {
        status: response.status,
        url: response.url,
        redirected: response.redirected,
        type: response.type,
        headers: headersOf(response),
        text: await response.text(),
      };
    }),
});

/** Sends a body made while it is sent, and counts what comes back at the same time. */
export const duplex = action({
  args: { ...urlArgs, chunks: v.number(), size: v.number() },
  handler: async (_, { url, chunks, size }) => {
    let made = 0;
    const body = new ReadableStream({
      pull(controller) {
        if (made === chunks) return controller.close();
        made++;
        controller.enqueue(new Uint8Array(size).fill(made));
      },
    });
    const response = await fetch(url, { method: "POST", body, duplex: "half" } as RequestInit);
    let madeAtHead = made;
    let received = 0;
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) received += chunk.byteLength;
    return { status: response.status, madeAtHead, made, received };
  },
});

export const redirectedStream = action({
  args: urlArgs,
  handler: async (_, { url }) =>
    caught(() => {
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode("streamed"));
          controller.close();
        },
      });
      return fetch(url, { method: "POST", body, duplex: "half" } as RequestInit);
    }),
});

export const aborts = action({
  args: urlArgs,
  handler: async (_, { url }) => {
    const early = new AbortController();
    early.abort();
    const late = new AbortController();
    setTimeout(() => late.abort(), 30);
    const reading = new AbortController();
    return {
      before: await caught(() => fetch(url, { signal: early.signal })),
      during: await caught(() => fetch(`${url}/slow`, { signal: late.signal })),
      timeout: await caught(() => fetch(`${url}/slow`, { signal: AbortSignal.timeout(30) })),
      body: await caught(async () => {
        const response = await fetch(`${url}/drip`, { signal: reading.signal });
        const reader = response.body!.getReader();
        await reader.read();
        reading.abort(new Error("enough"));
        for (;;) if ((await reader.read()).done) return "ended";
      }),
    };
  },
});

export const timers = action({
  args: {},
  handler: async () => {
    const fired: string[] = [];
    const began = Date.now();
    setTimeout(() => fired.push("late"), 100_000);
    setTimeout(() => fired.push("c"), 30);
    setTimeout((what: string) => fired.push(what), 10, "a");
    const cleared = setTimeout(() => fired.push("cleared"), 15);
    clearTimeout(cleared);
    let times = 0;
    await new Promise<void>((resolve) => {
      const interval = setInterval(() => {
        fired.push(`b${++times}`);
        if (times < 2) return;
        clearInterval(interval);
        resolve();
      }, 18);
    });
    return { fired, waited: Date.now() - began >= 30 };
  },
});

export const timerThrows = action({
  args: {},
  handler: async () => {
    setTimeout(() => {
      throw new TypeError("from a timer");
    }, 5);
    await new Promise((resolve) => setTimeout(resolve, 10_000));
  },
});

export const imports = action({
  args: {},
  handler: async () => {
    const first = await import("./lazy");
    const second = await import("./lazy");
    return { answer: first.answer, same: first === second, loads: first.loads() };
  },
});

/** More operations than may be in flight: how many were at the other end at once. */
export const wide = action({
  args: { ...urlArgs, count: v.number() },
  handler: async (_, { url, count }) => {
    const answers = await Promise.all(Array.from({ length: count }, async () => Number(await (await fetch(url)).text())));
    return Math.max(...answers);
  },
});

export const leaves = action({
  args: { url: v.string(), run: v.string() },
  handler: async (ctx, { url, run }) => {
    void fetch(url);
    void ctx.runQuery(api.events.list, { run });
    console.log("leaving");
  },
});

export const talks = action({
  args: { run: v.string() },
  handler: async (ctx, { run }) => {
    console.log("first", run);
    await ctx.runMutation(api.events.add, { run, what: "spoken" });
    for (let i = 0; i < 200; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if ((await ctx.runQuery(api.events.list, { run })).includes("heard")) break;
    }
    console.warn("second");
  },
});

export const sleeps = action({
  args: { run: v.string() },
  handler: async (ctx, { run }) => {
    await ctx.runMutation(api.events.add, { run, what: "asleep" });
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
});
