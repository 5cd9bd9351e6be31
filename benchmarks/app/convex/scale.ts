import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

const table = v.union(v.literal("rows_small"), v.literal("rows_large"));

/** One document, so that the table is there before it is filled from outside. */
export const start = mutation({
  args: { table },
  handler: async (ctx, { table }) => await ctx.db.insert(table, { a: 0, b: 0, c: 0, text: "" }),
});

/** Point reads. */
export const get = query({
  args: { ids: v.array(v.union(v.id("rows_small"), v.id("rows_large"))), nonce: v.number() },
  handler: async (ctx, { ids }) => {
    let found = 0;
    for (const id of ids) found += (await ctx.db.get(id)) === null ? 0 : 1;
    return found;
  },
});

/** Pages of fifty rows by an index of two fields. */
export const page = query({
  args: { table, starts: v.array(v.number()), nonce: v.number() },
  handler: async (ctx, { table, starts }) => {
    let found = 0;
    for (const b of starts) {
      found += (await ctx.db.query(table).withIndex("by_a_b", (q) => q.eq("a", 1).gte("b", b)).take(50)).length;
    }
    return found;
  },
});

/** Rows by the index that the benchmark adds. */
export const fresh = query({
  args: {},
  handler: async (ctx) => (await (ctx.db.query("rows_large") as any).withIndex("by_c", (q: any) => q.gte("c", 0.5)).take(50)).length,
});
