import { ActionRetrier, onCompleteValidator, runIdValidator } from "@convex-dev/action-retrier";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { action, internalMutation, mutation, query } from "./_generated/server";

const retrier = new ActionRetrier(components.actionRetrier, { initialBackoffMs: 20, base: 1.5, maxFailures: 3 });

export const completed = internalMutation({
  args: onCompleteValidator,
  handler: async (ctx, { runId, result }) => {
    await ctx.db.insert("events", { key: runId, what: result.type, value: "returnValue" in result ? result.returnValue : null });
  },
});

export const run = mutation({
  args: { key: v.string(), failures: v.number() },
  handler: async (ctx, args): Promise<string> => retrier.run(ctx, internal.pools.flaky, args, { onComplete: internal.retries.completed }),
});

export const runInAction = action({
  args: { key: v.string() },
  handler: async (ctx, { key }) => {
    const id = await retrier.run(ctx, internal.pools.flaky, { key, failures: 0 });
    for (;;) {
      const status = await retrier.status(ctx, id);
      if (status.type === "completed") {
        await retrier.cleanup(ctx, id);
        return status.result;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
});

export const delayed = mutation({
  args: { key: v.string() },
  handler: async (ctx, { key }): Promise<string> =>
    retrier.runAfter(ctx, 3600_000, internal.pools.flaky, { key, failures: 0 }, { onComplete: internal.retries.completed }),
});

export const cancel = mutation({ args: { id: runIdValidator }, handler: async (ctx, { id }) => retrier.cancel(ctx, id) });

export const cleanup = mutation({ args: { id: runIdValidator }, handler: async (ctx, { id }) => retrier.cleanup(ctx, id) });

export const status = query({ args: { id: runIdValidator }, handler: async (ctx, { id }) => retrier.status(ctx, id) });
