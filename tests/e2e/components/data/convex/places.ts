import { GeospatialIndex, point, rectangle } from "@convex-dev/geospatial";
import { v } from "convex/values";
import { components } from "./_generated/api";
import { mutation, query } from "./_generated/server";

const places = new GeospatialIndex<string, { kind: string }>(components.geospatial);

export const add = mutation({
  args: { key: v.string(), at: point, kind: v.string(), price: v.number() },
  handler: async (ctx, { key, at, kind, price }) => places.insert(ctx, key, at, { kind }, price),
});

export const remove = mutation({ args: { key: v.string() }, handler: async (ctx, { key }) => places.remove(ctx, key) });

export const get = query({ args: { key: v.string() }, handler: async (ctx, { key }) => places.get(ctx, key) });

export const within = query({
  args: { rectangle, kind: v.optional(v.string()), below: v.optional(v.number()), limit: v.optional(v.number()) },
  handler: async (ctx, { rectangle, kind, below, limit }) => {
    const keys: string[] = [];
    let cursor: string | undefined;
    do {
      const { results, nextCursor } = await places.query(
        ctx,
        {
          shape: { type: "rectangle", rectangle },
          limit: limit ?? 16,
          filter: (q) => {
            let found = q;
            if (kind !== undefined) found = found.eq("kind", kind);
            if (below !== undefined) found = found.lt("sortKey", below);
            return found;
          },
        },
        cursor,
      );
      keys.push(...results.map((one) => one.key));
      cursor = nextCursor;
    } while (cursor !== undefined);
    return keys;
  },
});

export const nearest = query({
  args: { point, limit: v.number(), maxDistance: v.optional(v.number()), kind: v.optional(v.string()) },
  handler: async (ctx, { point, limit, maxDistance, kind }) => {
    const found = await places.nearest(ctx, { point, limit, maxDistance, filter: kind === undefined ? undefined : (q) => q.eq("kind", kind) });
    return found.map(({ key, distance }) => [key, Math.round(distance / 1000)]);
  },
});
