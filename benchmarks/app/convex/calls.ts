import { v } from "convex/values";
import { mutation, query } from "./_generated/server";

/** One point read. `nonce` makes calls differ, so that no cached result answers them. */
export const read = query({
  args: { id: v.id("items"), nonce: v.optional(v.number()) },
  handler: async (ctx, { id }) => await ctx.db.get(id),
});

export const insert = mutation({
  args: { n: v.number(), text: v.string() },
  handler: async (ctx, event) => await ctx.db.insert("events", event),
});

export const transfer = mutation({
  args: { from: v.id("accounts"), to: v.id("accounts"), amount: v.number() },
  handler: async (ctx, { from, to, amount }) => {
    const source = (await ctx.db.get(from))!;
    const target = (await ctx.db.get(to))!;
    await ctx.db.patch(from, { balance: source.balance - amount });
    await ctx.db.patch(to, { balance: target.balance + amount });
    return null;
  },
});

export const total = query({
  args: {},
  handler: async (ctx) => (await ctx.db.query("accounts").collect()).reduce((sum, one) => sum + one.balance, 0),
});

export const addItem = mutation({
  args: { key: v.number(), text: v.string() },
  handler: async (ctx, item) => await ctx.db.insert("items", item),
});

export const addAccounts = mutation({
  args: { first: v.number(), count: v.number(), balance: v.number() },
  handler: async (ctx, { first, count, balance }) => {
    const ids = [];
    for (let n = 0; n < count; n++) ids.push(await ctx.db.insert("accounts", { number: first + n, balance }));
    return ids;
  },
});
