import { createFunctionHandle, type FunctionHandle } from "convex/server";
import { v } from "convex/values";
import { api, components, internal } from "./_generated/api";
import type { Id } from "./_generated/dataModel";
import { action, internalMutation, internalQuery, mutation, query } from "./_generated/server";

export const add = mutation({
  args: { name: v.string(), by: v.number() },
  handler: async (ctx, args): Promise<number[]> => {
    await ctx.db.insert("counts", { owner: args.name });
    const first = await ctx.runMutation(components.counter.counts.add, args);
    const second = await ctx.runMutation(components.second.counts.add, { ...args, by: 10 });
    return [first, second];
  },
});

export const addCaught = mutation({
  args: {},
  handler: async (ctx): Promise<string> => {
    try {
      await ctx.runMutation(components.counter.counts.add, { name: "caught", by: -1 });
    } catch (error) {
      return (error as Error).message;
    }
    return "no error";
  },
});

export const get = query({
  args: { name: v.string() },
  handler: async (ctx, args): Promise<number[]> => [
    await ctx.runQuery(components.counter.counts.get, args),
    await ctx.runQuery(components.second.counts.get, args),
  ],
});

export const notes = query({ args: {}, handler: async (ctx): Promise<string[]> => ctx.runQuery(components.counter.counts.notes, {}) });

export const owners = query({ args: {}, handler: async ({ db }) => (await db.query("counts").collect()).length });

export const greetings = query({
  args: {},
  handler: async (ctx): Promise<unknown[]> => [
    await ctx.runQuery(components.counter.counts.greeting, {}),
    await ctx.runQuery(components.second.counts.greeting, {}),
  ],
});

export const page = query({ args: {}, handler: async (ctx): Promise<unknown> => ctx.runQuery(components.counter.counts.page, {}) });

export const where = query({ args: {}, handler: async (ctx): Promise<unknown> => ctx.runQuery(components.second.counts.where, {}) });

export const whoami = query({ args: {}, handler: async (ctx): Promise<unknown> => ctx.runQuery(components.counter.counts.whoami, {}) });

export const act = action({
  args: { name: v.string() },
  handler: async (ctx, { name }): Promise<unknown> => [
    await ctx.runAction(components.counter.counts.addByAction, { name }),
    await ctx.runQuery(components.counter.counts.get, { name }),
    await ctx.runQuery(components.counter.counts.whoami, {}),
    await ctx.runQuery(api.main.get, { name }),
  ],
});

export const missing = action({
  args: {},
  handler: async (ctx): Promise<string> => {
    try {
      await ctx.runQuery((components.counter as any).counts.nope, {});
    } catch (error) {
      return (error as Error).message;
    }
    return "no error";
  },
});

export const missingInQuery = query({
  args: { inside: v.boolean() },
  handler: async (ctx, { inside }): Promise<string> => {
    const target = inside ? (components.counter as any).counts.secret : (components as any).nope.counts.get;
    try {
      await ctx.runQuery(target, {});
    } catch (error) {
      return (error as Error).message;
    }
    return "no error";
  },
});

export const handles = query({
  args: {},
  handler: async (): Promise<string[]> => [
    await createFunctionHandle(components.counter.counts.add),
    await createFunctionHandle(components.second.counts.add),
    await createFunctionHandle(internal.main.own),
  ],
});

export const own = internalMutation({ args: { name: v.string(), by: v.number() }, handler: async () => "own" });

export const useHandle = mutation({
  args: { handle: v.string() },
  handler: async (ctx, { handle }): Promise<unknown> => ctx.runMutation(handle as FunctionHandle<"mutation">, { name: "handle", by: 3 }),
});

export const useHandleInAction = action({
  args: { handle: v.string() },
  handler: async (ctx, { handle }): Promise<unknown> => ctx.runMutation(handle as FunctionHandle<"mutation">, { name: "handle", by: 4 }),
});

export const schedule = mutation({
  args: { name: v.string() },
  handler: async (ctx, { name }): Promise<string[]> => {
    const handle = await createFunctionHandle(components.second.counts.add);
    await ctx.scheduler.runAfter(0, handle as FunctionHandle<"mutation">, { name, by: 7 });
    await ctx.scheduler.runAfter(0, components.counter.counts.add, { name, by: 5 });
    return [await ctx.runMutation(components.counter.counts.addLater, { name: `${name} later` })];
  },
});

export const jobs = query({
  args: {},
  handler: async (ctx): Promise<unknown> => [
    (await ctx.db.system.query("_scheduled_functions").collect()).map((job) => `${job.name} ${job.state.kind}`),
    await ctx.runQuery(components.counter.counts.jobs, {}),
    await ctx.runQuery(components.second.counts.jobs, {}),
  ],
});

export const store = action({
  args: { text: v.string() },
  handler: async (ctx, args): Promise<unknown> => {
    const [id, url] = await ctx.runAction(components.counter.counts.store, args);
    return [url, await ctx.runQuery(internal.main.isOurFile, { id: id! })];
  },
});

export const isOurFile = internalQuery({
  args: { id: v.string() },
  handler: async ({ db }, { id }): Promise<boolean> => (await db.system.get(id as Id<"_storage">)) !== null,
});

export const ticks = query({
  args: {},
  handler: async (ctx): Promise<number[]> => [
    await ctx.runQuery(components.counter.counts.ticks, {}),
    await ctx.runQuery(components.second.counts.ticks, {}),
  ],
});
