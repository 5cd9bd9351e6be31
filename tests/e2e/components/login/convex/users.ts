import { getAuthSessionId, getAuthUserId } from "@convex-dev/auth/server";
import { v } from "convex/values";
import { internalMutation, query } from "./_generated/server";

export const viewer = query({
  args: {},
  handler: async (ctx) => {
    const id = await getAuthUserId(ctx);
    const user = id === null ? null : await ctx.db.get(id);
    return user === null ? null : { email: user.email ?? null, anonymous: user.isAnonymous ?? false };
  },
});

export const session = query({ args: {}, handler: async (ctx) => (await getAuthSessionId(ctx)) !== null });

export const keepMail = internalMutation({
  args: { to: v.string(), code: v.string() },
  handler: async (ctx, args) => {
    await ctx.db.insert("mails", args);
  },
});

export const lastMail = query({
  args: { to: v.string() },
  handler: async (ctx, { to }) => (await ctx.db.query("mails").withIndex("to", (q) => q.eq("to", to)).order("desc").first())?.code ?? null,
});
