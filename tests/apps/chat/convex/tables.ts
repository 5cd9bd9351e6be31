import { mutationGeneric, queryGeneric } from "convex/server";
import { v } from "convex/values";

// A table that the schema does not name and that nobody has made yet.
export const normalize = queryGeneric({
  args: { id: v.string() },
  handler: async (ctx, { id }) => ctx.db.normalizeId("later", id),
});

export const make = mutationGeneric({
  args: {},
  handler: async (ctx) => await ctx.db.insert("later", {}),
});
