import { Crons } from "@convex-dev/crons";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { internalMutation, mutation, query } from "./_generated/server";

const crons = new Crons(components.crons);

export const tick = internalMutation({
  args: { key: v.string(), times: v.number() },
  handler: async (ctx, { key, times }) => {
    await ctx.db.insert("events", { key, what: "tick" });
    const ticks = await ctx.db.query("events").withIndex("by_key", (q) => q.eq("key", key)).collect();
    if (ticks.length >= times) await crons.delete(ctx, { name: key });
  },
});

export const every = mutation({
  args: { key: v.string(), ms: v.number(), times: v.number() },
  handler: async (ctx, { key, ms, times }): Promise<string> => crons.register(ctx, { kind: "interval", ms }, internal.dynamicCrons.tick, { key, times }, key),
});

export const nightly = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<string> =>
    crons.register(ctx, { kind: "cron", cronspec: "0 3 * * *", tz: "Europe/Berlin" }, internal.dynamicCrons.tick, { key, times: 1 }, key),
});

export const names = query({ args: {}, handler: async (ctx) => (await crons.list(ctx)).map((one) => one.name ?? null).sort() });

export const schedule = query({ args: { key: v.string() }, handler: async (ctx, { key }) => (await crons.get(ctx, { name: key }))?.schedule ?? null });

export const remove = mutation({ args: { key: v.string() }, handler: async (ctx, { key }) => crons.delete(ctx, { name: key }) });
