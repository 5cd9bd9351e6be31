import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalAction } from "./_generated/server";

export const expensive = internalAction({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<{ runs: number }> => ({
    runs: await ctx.runMutation(internal.events.record, { key, what: "computed" }),
  }),
});
