import { ShardedCounter } from "@convex-dev/sharded-counter";
import { v } from "convex/values";
import { components } from "./_generated/api";
import { action, mutation, query } from "./_generated/server";

const counter = new ShardedCounter(components.shardedCounter, { shards: { boxes: 4 }, defaultShards: 2 });

export const check = mutation({
  args: { by: v.number() },
  handler: async (ctx, { by }) => {
    await ctx.db.insert("boxes", { by });
    await counter.add(ctx, "boxes", by);
  },
});

export const checkAndFail = mutation({
  args: {},
  handler: async (ctx) => {
    await counter.inc(ctx, "boxes");
    throw new Error("rolled back");
  },
});

export const count = query({ args: {}, handler: async (ctx) => counter.count(ctx, "boxes") });

export const estimate = query({ args: {}, handler: async (ctx) => counter.estimateCount(ctx, "boxes", 4) });

export const rebalance = mutation({ args: {}, handler: async (ctx) => counter.rebalance(ctx, "boxes") });

export const reset = mutation({ args: {}, handler: async (ctx) => counter.reset(ctx, "boxes") });

export const byAction = action({
  args: {},
  handler: async (ctx): Promise<number> => {
    await counter.subtract(ctx, "boxes", 2);
    return counter.count(ctx, "boxes");
  },
});
