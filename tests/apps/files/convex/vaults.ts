// The files of the component, as the app reaches them.
import { action, mutation, query } from "./_generated/server";
import { components } from "./_generated/api";
import { v } from "convex/values";

export const put = action({
  args: { text: v.string() },
  handler: async (ctx, { text }): Promise<string> => await ctx.runAction(components.vault.box.put, { text }),
});

export const generateUploadUrl = mutation({
  args: {},
  handler: async (ctx): Promise<string> => await ctx.runMutation(components.vault.box.generateUploadUrl, {}),
});

export const look = query({
  args: { id: v.string() },
  handler: async (ctx, { id }): Promise<unknown> => ({
    own: await ctx.storage.getUrl(id),
    component: await ctx.runQuery(components.vault.box.look, { id }),
  }),
});

export const remove = mutation({
  args: { id: v.string() },
  handler: async (ctx, { id }) => {
    await ctx.runMutation(components.vault.box.remove, { id });
  },
});
