import { v } from "convex/values";
import { ConvexError } from "convex/values";
import { action, internalMutation, mutation, query } from "./_generated/server";
import { api } from "./_generated/api";

export const add = mutation({
  args: { text: v.string() },
  handler: async (ctx, { text }) => await ctx.db.insert("notes", { text }),
});

export const addInternally = internalMutation({
  args: { text: v.string() },
  handler: async (ctx, { text }) => {
    await ctx.db.insert("notes", { text });
  },
});

export const list = query({
  args: {},
  handler: async (ctx) => (await ctx.db.query("notes").collect()).map((one) => one.text),
});

export const size = query({ args: { text: v.string() }, handler: async (_, { text }) => text.length });

export const fails = query({
  args: {},
  handler: async () => {
    throw new ConvexError({ code: 7n });
  },
});

/** An action of the default runtime between two of Node. */
export const bounce = action({
  args: { depth: v.number() },
  handler: async (ctx, { depth }): Promise<string> => await ctx.runAction(api.node.nest, { depth }),
});
