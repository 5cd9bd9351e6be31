import { ActionCache } from "@convex-dev/action-cache";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { action, mutation } from "./_generated/server";

type Expensive = typeof internal.computing.expensive;
const cache: ActionCache<Expensive> = new ActionCache(components.actionCache, { action: internal.computing.expensive, name: "expensive-v1" });
const brief: ActionCache<Expensive> = new ActionCache(components.actionCache, { action: internal.computing.expensive, name: "brief", ttl: 200 });

export const fetchIt = action({
  args: { key: v.string(), force: v.optional(v.boolean()), brief: v.optional(v.boolean()) },
  handler: async (ctx, args): Promise<number> =>
    (await (args.brief ? brief : cache).fetch(ctx, { key: args.key }, { force: args.force ?? false })).runs,
});

export const remove = mutation({ args: { key: v.string() }, handler: async (ctx, { key }): Promise<null> => cache.remove(ctx, { key }) });

export const removeAll = mutation({ args: {}, handler: async (ctx): Promise<null> => cache.removeAllForName(ctx) });
