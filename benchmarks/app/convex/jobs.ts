import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalAction, internalMutation, mutation, query } from "./_generated/server";

// What a scheduled mutation costs by itself: one insert.
export const work = internalMutation({
  args: { n: v.number() },
  handler: async (ctx, { n }) => {
    await ctx.db.insert("events", { n, text: "scheduled" });
  },
});

export const act = internalAction({ args: { n: v.number() }, handler: async () => {} });

// `count` jobs, due one after the other over `spreadMs`.
export const plan = mutation({
  args: { count: v.number(), spreadMs: v.number(), action: v.boolean(), delayMs: v.number() },
  handler: async (ctx, { count, spreadMs, action, delayMs }) => {
    for (let n = 0; n < count; n++) {
      await ctx.scheduler.runAfter(delayMs + (n * spreadMs) / count, action ? internal.jobs.act : internal.jobs.work, { n });
    }
  },
});

// The newest `count` jobs: when each was due, and when it had ended.
export const last = query({
  args: { count: v.number() },
  handler: async (ctx, { count }) => {
    const jobs = await ctx.db.system.query("_scheduled_functions").order("desc").take(count);
    return jobs.map(({ scheduledTime, completedTime, state }) => ({ due: scheduledTime, ended: completedTime ?? null, state: state.kind }));
  },
});
