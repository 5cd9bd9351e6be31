import { v } from "convex/values";
import { internalMutation, mutation, query } from "./_generated/server";

export const create = mutation({
  args: { name: v.string(), topic: v.optional(v.string()) },
  handler: async (ctx, { name, topic }) => {
    const known = await ctx.db
      .query("channels")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    if (known !== null) return known._id;
    return await ctx.db.insert("channels", { name, topic: topic ?? null });
  },
});

export const list = query({
  args: {},
  handler: async (ctx) => await ctx.db.query("channels").collect(),
});

export const clear = internalMutation({
  args: { channel: v.id("channels") },
  handler: async (ctx, { channel }) => {
    let removed = 0;
    for await (const message of ctx.db
      .query("messages")
      .withIndex("by_channel", (q) => q.eq("channel", channel))) {
      await ctx.db.delete(message._id);
      removed += 1;
    }
    return removed;
  },
});
