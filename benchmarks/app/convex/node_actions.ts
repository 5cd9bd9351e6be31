"use node";
import { v } from "convex/values";
import { action } from "./_generated/server";

/** As little as an action can do. */
export const nothing = action({ args: { n: v.number() }, handler: async (_, { n }) => n });

/** Takes 40 MB for a moment. */
export const heavy = action({
  args: {},
  handler: async () => {
    const kept = Array.from({ length: 5 }, () => new Array(1_000_000).fill(0).map((_, i) => i));
    await new Promise((resolve) => setTimeout(resolve, 200));
    return kept.length;
  },
});
