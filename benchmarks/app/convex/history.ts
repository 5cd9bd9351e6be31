import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

const queue = v.union(v.literal("jobs_consumed"), v.literal("jobs_fresh"));
const counters = v.union(v.literal("keys_updated"), v.literal("keys_fresh"));

export const fill = mutation({
  args: { jobs: v.number(), keys: v.number() },
  handler: async (ctx, { jobs, keys }) => {
    for (const table of ["jobs_consumed", "jobs_fresh"] as const) {
      for (let n = 0; n < jobs; n++) await ctx.db.insert(table, { n, text: "x".repeat(100) });
    }
    for (const table of ["keys_updated", "keys_fresh"] as const) {
      for (let key = 0; key < keys; key++) await ctx.db.insert(table, { key, value: 0 });
    }
  },
});

/** `take(1)` on a queue, so many times over. */
export const first = query({
  args: { table: queue, times: v.number(), nonce: v.number() },
  handler: async (ctx, { table, times }) => {
    let found = 0;
    for (let n = 0; n < times; n++) found += (await ctx.db.query(table).take(1)).length;
    return found;
  },
});

/** All keys by an index, so many times over. */
export const keys = query({
  args: { table: counters, times: v.number(), nonce: v.number() },
  handler: async (ctx, { table, times }) => {
    let found = 0;
    for (let n = 0; n < times; n++) {
      found += (await ctx.db.query(table).withIndex("by_key", (q) => q.gte("key", 0)).collect()).length;
    }
    return found;
  },
});
