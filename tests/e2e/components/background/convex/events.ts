import { v } from "convex/values";
import { internalMutation, query } from "./_generated/server";

export const record = internalMutation({
  args: { key: v.string(), what: v.string(), value: v.optional(v.any()) },
  returns: v.number(),
  handler: async (ctx, args) => {
    await ctx.db.insert("events", args);
    const same = await ctx.db
      .query("events")
      .withIndex("by_key", (q) => q.eq("key", args.key))
      .collect();
    return same.filter((one) => one.what === args.what).length;
  },
});

export const of = query({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    const rows = await ctx.db
      .query("events")
      .withIndex("by_key", (q) => q.eq("key", key))
      .collect();
    return rows.map(({ what, value }) => [what, value ?? null]);
  },
});
