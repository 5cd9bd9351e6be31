// One route for each behaviour of HTTP actions.
import { httpRouter } from "convex/server";
import { ConvexError } from "convex/values";
import { api, internal } from "./_generated/api";
import { httpAction } from "./_generated/server";

const http = httpRouter();
const encoder = new TextEncoder();
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const runOf = (request: Request) => new URL(request.url).searchParams.get("run") ?? "";

const show = httpAction(async (ctx, request) => {
  const headers: [string, string][] = [];
  request.headers.forEach((value, name) => headers.push([name, value]));
  return Response.json({ url: request.url, method: request.method, headers, hasBody: request.body !== null, text: await request.text() });
});
for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const) http.route({ path: "/show", method, handler: show });

const named = (name: string) => httpAction(async (ctx, request) => new Response(`${name} ${new URL(request.url).pathname}`));
http.route({ path: "/files/exact", method: "GET", handler: named("exact") });
http.route({ pathPrefix: "/files/", method: "GET", handler: named("short") });
http.route({ pathPrefix: "/files/deep/", method: "GET", handler: named("long") });

http.route({
  path: "/cookies",
  method: "GET",
  handler: httpAction(async () => {
    const headers = new Headers({ "x-name": "caf\u00e9", connection: "close", "keep-alive": "timeout=1", server: "mine" });
    headers.append("set-cookie", "a=1");
    headers.append("set-cookie", "b=2; Path=/");
    return new Response(null, { status: 204, headers });
  }),
});
http.route({ path: "/length", method: "GET", handler: httpAction(async () => new Response("hello")) });
http.route({
  path: "/short",
  method: "GET",
  handler: httpAction(async () => {
    const { readable, writable } = new TransformStream();
    void (async () => {
      const writer = writable.getWriter();
      await writer.write(encoder.encode("half"));
      await writer.close();
    })();
    return new Response(readable, { headers: { "content-length": "8" } });
  }),
});

// Streams.
http.route({
  path: "/echo",
  method: "POST",
  handler: httpAction(async (ctx, request) => new Response(request.body, { headers: { "x-echo": "1" } })),
});
http.route({
  path: "/count",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    let bytes = 0;
    let chunks = 0;
    for await (const chunk of request.body as unknown as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      chunks++;
    }
    return Response.json({ bytes, chunks });
  }),
});
http.route({ path: "/ignore", method: "POST", handler: httpAction(async () => new Response("did not look")) });
http.route({
  path: "/first",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const reader = request.body!.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return new Response(`first ${value!.byteLength > 0}`);
  }),
});
http.route({
  path: "/drip",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const { readable, writable } = new TransformStream();
    const run = runOf(request);
    const count = Number(new URL(request.url).searchParams.get("count") ?? "5");
    void (async () => {
      const writer = writable.getWriter();
      for (let i = 0; i < count; i++) {
        await writer.write(encoder.encode(`tick ${i}\n`));
        await ctx.runMutation(api.events.add, { run, what: `tick ${i}` });
        await sleep(20);
      }
      await writer.close();
    })();
    return new Response(readable);
  }),
});
http.route({
  path: "/flood",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const megabytes = Number(new URL(request.url).searchParams.get("mb") ?? "1");
    let left = megabytes * 16;
    const chunk = new Uint8Array(65536).fill(97);
    return new Response(
      new ReadableStream({
        pull(controller) {
          if (left-- > 0 && !request.signal.aborted) controller.enqueue(chunk.slice());
          else controller.close();
        },
      }),
    );
  }),
});
http.route({
  path: "/never",
  method: "GET",
  handler: httpAction(async () => {
    console.log("opening");
    return new Response(new ReadableStream({ start: (controller) => controller.enqueue(encoder.encode("open")) }));
  }),
});
http.route({
  path: "/background",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const run = runOf(request);
    request.signal.addEventListener("abort", () => void ctx.runMutation(api.events.add, { run, what: "aborted" }));
    await ctx.runMutation(api.events.add, { run, what: "begun" });
    const { readable, writable } = new TransformStream();
    void (async () => {
      const writer = writable.getWriter();
      for (let i = 0; i < 20; i++) {
        await writer.write(encoder.encode("x".repeat(1000)));
        await sleep(25);
      }
      await ctx.runMutation(api.events.add, { run, what: "ended" });
      await writer.close();
    })();
    return new Response(readable);
  }),
});
http.route({
  path: "/slow-reader",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    await sleep(1500);
    return new Response(String((await request.arrayBuffer()).byteLength));
  }),
});
http.route({
  path: "/slow",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const run = runOf(request);
    await ctx.runMutation(api.events.add, { run, what: "begun" });
    for (let i = 0; i < 100 && !request.signal.aborted; i++) await sleep(20);
    await sleep(50);
    await ctx.runMutation(api.events.add, { run, what: request.signal.aborted ? "aborted" : "not aborted" });
    return new Response("late");
  }),
});

// Failures.
http.route({ path: "/throws", method: "GET", handler: httpAction(async () => { throw new Error("boom"); }) });
http.route({ path: "/throws-data", method: "GET", handler: httpAction(async () => { throw new ConvexError({ code: 7n }); }) });
http.route({ path: "/no-response", method: "GET", handler: httpAction(async () => "text" as unknown as Response) });
http.route({
  path: "/breaks",
  method: "GET",
  handler: httpAction(async () => {
    let sent = false;
    return new Response(
      new ReadableStream({
        pull(controller) {
          if (sent) throw new Error("broke off");
          sent = true;
          controller.enqueue(encoder.encode("so far"));
        },
      }),
    );
  }),
});

http.route({
  path: "/hog",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const held = [await request.text()] as unknown[];
    for (let i = 0; i < 100; i++) {
      held.push(new Uint8Array(4 << 20).fill(i));
      await sleep(1);
    }
    return new Response(String(held.length));
  }),
});

// Calls.
http.route({
  path: "/calls",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const run = runOf(request);
    console.log("calling", run);
    const added = await ctx.runMutation(api.events.add, { run, what: await request.text() });
    const listed = await ctx.runQuery(api.events.list, { run });
    const shouted = await ctx.runAction(api.actions.shout, { text: "hey" });
    let failure = "";
    try {
      await ctx.runMutation(internal.events.fails, { run });
    } catch (error) {
      failure = (error as Error).message;
    }
    return Response.json({ added, listed, shouted, failure, hidden: await ctx.runQuery(internal.events.hidden, {}) });
  }),
});
http.route({
  path: "/whoami",
  method: "GET",
  handler: httpAction(async (ctx, request) => {
    const attempt = async (ask: () => Promise<unknown>) => {
      try {
        return { value: await ask() };
      } catch (error) {
        return { error: (error as Error).message };
      }
    };
    return Response.json({
      own: await attempt(() => ctx.auth.getUserIdentity()),
      nested: await attempt(() => ctx.runQuery(internal.events.whoami, {})),
      header: request.headers.get("authorization"),
    });
  }),
});

http.route({
  path: "/services",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const run = runOf(request);
    const id = await ctx.storage.store(await request.blob());
    const stored = await ctx.storage.get(id);
    const text = await stored!.text();
    await ctx.scheduler.runAfter(0, api.events.add, { run, what: `scheduled for ${text}` });
    const url = await ctx.storage.getUrl(id);
    await ctx.storage.delete(id);
    return Response.json({ text, type: stored!.type, url, gone: await ctx.storage.get(id) });
  }),
});
const { lazyAnswer } = { lazyAnswer: async () => (await import("./lazy")).answer };
http.route({ path: "/lazy", method: "GET", handler: httpAction(async () => Response.json(await lazyAnswer())) });
http.route({
  path: "/form",
  method: "POST",
  handler: httpAction(async (ctx, request) => {
    const form = await request.formData();
    const file = form.get("file") as File | null;
    return Response.json({ field: form.get("field"), file: file === null ? null : [file.name, file.type, await file.text()] });
  }),
});

export default http;
