import { paginationOptsValidator } from "convex/server";
import { v } from "convex/values";
import { api } from "./_generated/api";
import { mutation, query } from "./_generated/server";

export const page = query({
  args: { paginationOpts: paginationOptsValidator },
  handler: async (ctx, { paginationOpts }) => await ctx.db.query("ranked").withIndex("by_rank").paginate(paginationOpts),
});

export const all = query({
  args: {},
  handler: async (ctx) => await ctx.db.query("ranked").withIndex("by_rank").collect(),
});

export const add = mutation({
  args: { ranks: v.array(v.number()), label: v.string() },
  handler: async (ctx, { ranks, label }) => {
    for (const rank of ranks) await ctx.db.insert("ranked", { rank, label });
  },
});

/** Changes the document at a place of the whole list: moves it, or removes it if there is no new rank. */
export const change = mutation({
  args: { place: v.number(), rank: v.optional(v.number()) },
  handler: async (ctx, { place, rank }) => {
    const list = await ctx.db.query("ranked").withIndex("by_rank").collect();
    const found = list[place % Math.max(1, list.length)];
    if (found === undefined) return;
    if (rank === undefined) await ctx.db.delete(found._id);
    else await ctx.db.patch(found._id, { rank });
  },
});

export const note = mutation({
  args: { name: v.string() },
  returns: v.object({ at: v.commitTs(), read: v.boolean() }),
  handler: async (ctx, { name }) => {
    const id = await ctx.db.insert("events", { at: ctx.db.vars.commitTs, name });
    const back = await ctx.db.get(id);
    return { at: ctx.db.vars.commitTs, read: back?.at === ctx.db.vars.commitTs };
  },
});

export const events = query({
  args: { after: v.optional(v.int64()) },
  handler: async (ctx, { after }) =>
    await ctx.db
      .query("events")
      .withIndex("by_at", (q) => q.gt("at", after ?? 0n))
      .collect(),
});

/** Counts events without depending on those that are being written. */
export const census = mutation({
  args: {},
  handler: async (ctx): Promise<number> => {
    const seen = await ctx.runQuery(api.data.events, {}, { useStaleSnapshot: true });
    await ctx.db.insert("ranked", { rank: 1e6, label: `${seen.length}` });
    return seen.length;
  },
});

export const cursorError = query({
  args: { cursor: v.string() },
  handler: async (ctx, { cursor }) => {
    try {
      await ctx.db.query("ranked").paginate({ cursor, numItems: 1 });
    } catch (error) {
      return (error as { data?: unknown }).data ?? null;
    }
  },
});
