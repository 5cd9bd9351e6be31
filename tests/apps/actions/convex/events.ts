// What actions leave behind, for tests to see.
import { v } from "convex/values";
import { internalMutation, internalQuery, mutation, query } from "./_generated/server";

export const add = mutation({
  args: { run: v.string(), what: v.string() },
  handler: async (ctx, { run, what }) => {
    await ctx.db.insert("events", { run, what });
    return what.length;
  },
});

export const list = query({
  args: { run: v.string() },
  handler: async (ctx, { run }) => {
    const found = await ctx.db.query("events").withIndex("by_run", (q) => q.eq("run", run)).collect();
    return found.map((one) => one.what);
  },
});

export const hidden = internalQuery({ args: {}, handler: async () => "internal" });
export const whoami = internalQuery({ args: {}, handler: async (ctx) => (await ctx.auth.getUserIdentity())?.subject ?? null });
export const fails = internalMutation({
  args: { run: v.string() },
  handler: async (ctx, { run }) => {
    await ctx.db.insert("events", { run, what: "never" });
    throw new Error("no such thing");
  },
});
