import { NonRetryableError, type WorkId, Workpool, vOnCompleteArgs, vWorkId } from "@convex-dev/workpool";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import type { DataModel } from "./_generated/dataModel";
import { action, internalAction, internalMutation, internalQuery, mutation, query } from "./_generated/server";

const wide = new Workpool(components.widePool, {
  maxParallelism: 8,
  defaultRetryBehavior: { maxAttempts: 4, initialBackoffMs: 20, base: 1.5 },
});
const serial = new Workpool(components.serialPool, { maxParallelism: 1 });

export const flaky = internalAction({
  args: { key: v.string(), failures: v.number() },
  handler: async (ctx, { key, failures }): Promise<string> => {
    const attempt: number = await ctx.runMutation(internal.events.record, { key, what: "attempt" });
    if (attempt <= failures) throw new Error(`attempt ${attempt} failed`);
    return `done at ${attempt}`;
  },
});

export const hopeless = internalAction({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await ctx.runMutation(internal.events.record, { key, what: "attempt" });
    throw new NonRetryableError("no use");
  },
});

export const count = internalQuery({
  args: { key: v.string() },
  handler: async (ctx, { key }) => (await ctx.db.query("events").withIndex("by_key", (q) => q.eq("key", key)).collect()).length,
});

export const completed = wide.defineOnComplete<DataModel>({
  handler: async (ctx, { context, result }) => {
    await ctx.db.insert("events", { key: context.key, what: result.kind, value: "returnValue" in result ? result.returnValue : "error" in result ? result.error : null });
  },
});

export const oneByOneDone = internalMutation({
  args: vOnCompleteArgs(v.object({ key: v.string(), value: v.number() })),
  handler: async (ctx, { context, result }) => {
    await ctx.db.insert("events", { key: context.key, what: result.kind, value: context.value });
  },
});

export const retried = mutation({
  args: { key: v.string(), failures: v.number(), retry: v.boolean() },
  handler: async (ctx, { key, failures, retry }): Promise<WorkId> =>
    wide.enqueueAction(ctx, internal.pools.flaky, { key, failures }, { retry, onComplete: internal.pools.completed, context: { key } }),
});

export const notRetried = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<WorkId> =>
    wide.enqueueAction(ctx, internal.pools.hopeless, { key }, { retry: true, onComplete: internal.pools.completed, context: { key } }),
});

export const asked = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await ctx.db.insert("events", { key, what: "asked" });
    await wide.enqueueQuery(ctx, internal.pools.count, { key }, { onComplete: internal.pools.completed, context: { key } });
  },
});

// Reads the newest value and writes the next one: in a serial pool no run sees another half done.
export const increment = internalMutation({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    const last = await ctx.db.query("events").withIndex("by_key", (q) => q.eq("key", key)).order("desc").first();
    const value: number = (last?.value ?? 0) + 1;
    await ctx.db.insert("events", { key, what: "increment", value });
    return value;
  },
});

export const many = action({
  args: { key: v.string(), times: v.number() },
  handler: async (ctx, { key, times }): Promise<number> => {
    const ids = await serial.enqueueMutationBatch(ctx, internal.pools.increment, Array(times).fill({ key }));
    return ids.length;
  },
});

export const later = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<WorkId> =>
    wide.enqueueMutation(ctx, internal.events.record, { key, what: "ran" }, { runAfter: 3600_000, onComplete: internal.pools.completed, context: { key } }),
});

export const cancel = mutation({ args: { id: vWorkId }, handler: async (ctx, { id }) => wide.cancel(ctx, id) });

export const cancelAll = mutation({ args: {}, handler: async (ctx) => wide.cancelAll(ctx) });

export const status = query({ args: { id: vWorkId }, handler: async (ctx, { id }) => wide.status(ctx, id) });

export const rolledBack = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    await wide.enqueueMutation(ctx, internal.events.record, { key, what: "ran" });
    throw new Error("rolled back");
  },
});
