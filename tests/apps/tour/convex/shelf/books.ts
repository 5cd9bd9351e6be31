import { v } from "convex/values";
import { internalQuery, mutation } from "./_generated/server";

export const put = mutation({
  args: { title: v.string() },
  returns: v.number(),
  handler: async (ctx, { title }) => {
    await ctx.db.insert("books", { title });
    return (await ctx.db.query("books").collect()).length;
  },
});

export const titles = internalQuery({
  args: {},
  handler: async (ctx) => (await ctx.db.query("books").collect()).map((book) => book.title),
});
