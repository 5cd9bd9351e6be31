import { HOUR, MINUTE, RateLimiter } from "@convex-dev/rate-limiter";
import { v } from "convex/values";
import { components } from "./_generated/api";
import { action, mutation, query } from "./_generated/server";

const limiter = new RateLimiter(components.rateLimiter, {
  messages: { kind: "token bucket", rate: 2, period: HOUR, capacity: 3 },
  trials: { kind: "fixed window", rate: 1, period: HOUR },
  sharded: { kind: "token bucket", rate: 100, period: MINUTE, shards: 4 },
});

export const send = mutation({
  args: { user: v.string() },
  handler: async (ctx, { user }) => {
    const { ok, retryAfter } = await limiter.limit(ctx, "messages", { key: user });
    return { ok, later: retryAfter !== undefined && retryAfter > 0 };
  },
});

export const check = query({
  args: { user: v.string() },
  handler: async (ctx, { user }) => (await limiter.check(ctx, "messages", { key: user })).ok,
});

export const value = query({
  args: { user: v.string() },
  handler: async (ctx, { user }) => {
    const { config, value } = await limiter.getValue(ctx, "messages", { key: user });
    return [config.capacity, Math.floor(value)];
  },
});

export const tryOrThrow = mutation({
  args: {},
  handler: async (ctx) => {
    await limiter.limit(ctx, "trials", { throws: true });
  },
});

export const reset = mutation({
  args: { user: v.string() },
  handler: async (ctx, { user }) => limiter.reset(ctx, "messages", { key: user }),
});

export const manyInAction = action({
  args: {},
  handler: async (ctx): Promise<number> => {
    let passed = 0;
    for (let i = 0; i < 5; i++) if ((await limiter.limit(ctx, "sharded")).ok) passed++;
    return passed;
  },
});
