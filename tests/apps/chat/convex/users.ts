import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

export const join = mutation({
  args: { name: v.string() },
  returns: v.id("users"),
  handler: async (ctx, { name }) => {
    const known = await ctx.db
      .query("users")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    if (known !== null) return known._id;
    return await ctx.db.insert("users", { name, joined: Date.now() });
  },
});

export const count = query({
  args: {},
  returns: v.number(),
  handler: async (ctx) => (await ctx.db.query("users").collect()).length,
});

export const whoami = query({
  args: {},
  handler: async (ctx) => await ctx.auth.getUserIdentity(),
});
