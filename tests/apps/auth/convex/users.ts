import { v } from "convex/values";
import { anyApi } from "convex/server";
import { action, internalQuery, mutation, query } from "./_generated/server";

declare const process: { env: Record<string, string | undefined> };

/** Who calls. */
export const me = query({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });

/** The same from a mutation, which a nested query agrees with. */
export const join = mutation({
  args: {},
  handler: async (ctx) => {
    const identity = await ctx.auth.getUserIdentity();
    const nested: { tokenIdentifier: string } | null = await ctx.runQuery(anyApi.users.me, {});
    if (identity !== null) await ctx.db.insert("users", { name: identity.tokenIdentifier });
    return [identity?.tokenIdentifier ?? null, nested?.tokenIdentifier ?? null];
  },
});

/** The same from an action and what it calls. */
export const act = action({
  args: {},
  handler: async (ctx): Promise<(string | null)[]> => {
    const own = await ctx.auth.getUserIdentity();
    const nested: { tokenIdentifier: string } | null = await ctx.runQuery(anyApi.users.hidden, {});
    return [own?.tokenIdentifier ?? null, nested?.tokenIdentifier ?? null];
  },
});
export const hidden = internalQuery({ args: {}, handler: (ctx) => ctx.auth.getUserIdentity() });

/** Nobody's business who asks: shared by all users. */
export const count = query({ args: {}, handler: async (ctx) => (await ctx.db.query("users").collect()).length });

/** A token of this deployment. */
export const sign = mutation({
  args: { claims: v.any(), seconds: v.number() },
  handler: (ctx, { claims, seconds }) => ctx.auth.signJwt({ claims, expiresInSeconds: seconds }),
});

/** The request behind a call. */
export const request = mutation({ args: {}, handler: (ctx) => ctx.meta.getRequestMetadata() });

/** A variable and a timestamp. */
export const greeting = query({ args: {}, handler: () => process.env.GREETING ?? null });
export const snapshot = query({ args: {}, handler: (ctx) => ctx.meta.getSnapshotTs() });
export const write = mutation({
  args: {},
  handler: async (ctx) => {
    const before = ctx.meta.getSnapshotTs();
    await ctx.db.insert("users", { name: "somebody" });
    return before;
  },
});
