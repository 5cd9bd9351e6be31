import { createFunctionHandle } from "convex/server";
import { v } from "convex/values";
import { internal } from "./_generated/api";
import type { Id } from "./_generated/dataModel";
import { action, internalAction, internalMutation, mutation, query } from "./_generated/server";

export const notes = query({
  args: {},
  handler: async (ctx) => (await ctx.db.query("notes").collect()).map((note) => note.text),
});

export const scheduled = query({
  args: {},
  handler: async (ctx) => await ctx.db.system.query("_scheduled_functions").collect(),
});

export const get = query({
  args: { id: v.id("_scheduled_functions") },
  handler: async (ctx, { id }) => await ctx.db.system.get(id),
});

export const note = internalMutation({
  args: { text: v.string() },
  handler: async (ctx, { text }) => {
    await ctx.db.insert("notes", { text });
  },
});

export const later = mutation({
  args: { ms: v.number(), text: v.string() },
  handler: async (ctx, { ms, text }): Promise<Id<"_scheduled_functions">> => {
    const job = await ctx.scheduler.runAfter(ms, internal.jobs.note, { text });
    await ctx.db.insert("reminders", { job });
    return job;
  },
});

export const at = mutation({
  args: { time: v.number(), text: v.string() },
  handler: async (ctx, { time, text }): Promise<Id<"_scheduled_functions">> => await ctx.scheduler.runAt(time, internal.jobs.note, { text }),
});

export const cancel = mutation({
  args: { id: v.id("_scheduled_functions") },
  handler: async (ctx, { id }) => await ctx.scheduler.cancel(id),
});

export const laterFromAction = action({
  args: { ms: v.number(), text: v.string(), cancel: v.boolean() },
  handler: async (ctx, { ms, text, cancel }): Promise<Id<"_scheduled_functions">> => {
    const job = await ctx.scheduler.runAfter(ms, internal.jobs.note, { text });
    if (cancel) await ctx.scheduler.cancel(job);
    return job;
  },
});

export const failing = internalMutation({
  args: {},
  handler: async (ctx) => {
    await ctx.db.insert("notes", { text: "never" });
    throw new Error("boom");
  },
});

export const scheduleFailing = mutation({
  args: {},
  handler: async (ctx): Promise<Id<"_scheduled_functions">> => await ctx.scheduler.runAfter(0, internal.jobs.failing, {}),
});

export const tick = internalMutation({
  args: { job: v.string() },
  handler: async (ctx, { job }) => {
    await ctx.db.insert("ticks", { job });
  },
});

export const ticks = query({
  args: {},
  handler: async (ctx) => (await ctx.db.query("ticks").collect()).length,
});

export const apply = internalMutation({
  args: { key: v.number() },
  handler: async (ctx, { key }) => {
    await ctx.db.insert("applied", { key, kind: "mutation" });
  },
});

export const record = internalMutation({
  args: { key: v.number() },
  handler: async (ctx, { key }) => {
    await ctx.db.insert("applied", { key, kind: "action" });
  },
});

export const act = internalAction({
  args: { key: v.number() },
  handler: async (ctx, { key }) => {
    await ctx.runMutation(internal.jobs.record, { key });
    await new Promise((resolve) => setTimeout(resolve, 30));
  },
});

export const plan = mutation({
  args: { from: v.number(), count: v.number(), everyNthIsAction: v.number(), spreadMs: v.number() },
  handler: async (ctx, { from, count, everyNthIsAction, spreadMs }) => {
    for (let key = from; key < from + count; key++) {
      const target = everyNthIsAction && key % everyNthIsAction === 0 ? internal.jobs.act : internal.jobs.apply;
      await ctx.scheduler.runAfter(Math.floor(((key - from) * spreadMs) / count), target, { key });
    }
  },
});

export const applied = query({
  args: {},
  handler: async (ctx) => (await ctx.db.query("applied").collect()).map(({ key, kind }) => ({ key, kind })),
});

export const sleep = internalAction({
  args: { ms: v.number() },
  handler: async (ctx, { ms }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
  },
});

export const scheduleSleep = mutation({
  args: { ms: v.number() },
  handler: async (ctx, { ms }): Promise<Id<"_scheduled_functions">> => await ctx.scheduler.runAfter(0, internal.jobs.sleep, { ms }),
});

export const byHandle = mutation({
  args: { text: v.string() },
  handler: async (ctx, { text }): Promise<Id<"_scheduled_functions">> => {
    const handle = await createFunctionHandle(internal.jobs.note);
    return await ctx.scheduler.runAfter(0, handle, { text });
  },
});

// What `_scheduled_functions` calls a function may be given back as a name.
export const again = mutation({
  args: { job: v.id("_scheduled_functions") },
  handler: async (ctx, { job }): Promise<Id<"_scheduled_functions">> => {
    const found = await ctx.db.system.get(job);
    return await ctx.scheduler.runAfter(0, found!.name as never, found!.args[0] as never);
  },
});
