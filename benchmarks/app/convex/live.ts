import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

export const fill = mutation({
  args: { count: v.number(), bytes: v.number() },
  handler: async (ctx, { count, bytes }) => {
    const ids = [];
    for (let n = 0; n < count; n++) ids.push(await ctx.db.insert("messages", { body: "x".repeat(bytes), likes: 0 }));
    return ids;
  },
});

/** What every subscriber of the broadcast shares. */
export const list = query({
  args: {},
  handler: async (ctx) => await ctx.db.query("messages").collect(),
});

export const like = mutation({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => await ctx.db.patch(id, { likes: (await ctx.db.get(id))!.likes + 1 }),
});

/** Each `n` is an entry of its own, and all of them depend on one document. */
export const likesFor = query({
  args: { id: v.id("messages"), n: v.number() },
  handler: async (ctx, { id, n }) => ({ n, likes: (await ctx.db.get(id))!.likes }),
});

/** Each `n` depends on a range of its own, which nobody writes to. */
export const unrelated = query({
  args: { n: v.number() },
  handler: async (ctx, { n }) =>
    await ctx.db
      .query("items")
      .withIndex("by_key", (q) => q.eq("key", n))
      .collect(),
});
