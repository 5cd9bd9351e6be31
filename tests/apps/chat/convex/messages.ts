import { paginationOptsValidator } from "convex/server";
import { ConvexError, v } from "convex/values";
import { api, internal } from "./_generated/api";
import { action, internalQuery, mutation, query } from "./_generated/server";

export const list = query({
  args: { channel: v.id("channels"), limit: v.optional(v.number()) },
  handler: async (ctx, { channel, limit }) => {
    console.log("listing", channel);
    const messages = await ctx.db
      .query("messages")
      .withIndex("by_channel", (q) => q.eq("channel", channel))
      .order("desc")
      .take(limit ?? 50);
    return messages.reverse();
  },
});

export const page = query({
  args: { channel: v.id("channels"), paginationOpts: paginationOptsValidator },
  handler: async (ctx, { channel, paginationOpts }) =>
    await ctx.db
      .query("messages")
      .withIndex("by_channel", (q) => q.eq("channel", channel))
      .order("desc")
      .paginate(paginationOpts),
});

export const popular = query({
  args: { channel: v.id("channels"), atLeast: v.number() },
  handler: async (ctx, { channel, atLeast }) =>
    await ctx.db
      .query("messages")
      .withIndex("by_channel_and_likes", (q) => q.eq("channel", channel).gte("likes", atLeast))
      .filter((q) => q.neq(q.field("body"), "spam"))
      .collect(),
});

export const get = query({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => await ctx.db.get(id),
});

export const send = mutation({
  args: { channel: v.id("channels"), author: v.id("users"), body: v.string() },
  returns: v.id("messages"),
  handler: async (ctx, { channel, author, body }) => {
    if (body === "") throw new ConvexError({ code: "EMPTY" });
    if (body === "boom") throw new Error("no such mood");
    return await ctx.db.insert("messages", { channel, author, body, likes: 0, size: BigInt(body.length) });
  },
});

export const like = mutation({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => {
    const message = await ctx.db.get(id);
    if (message === null) throw new ConvexError("gone");
    await ctx.db.patch(id, { likes: message.likes + 1 });
    return message.likes + 1;
  },
});

export const edit = mutation({
  args: { id: v.id("messages"), body: v.string() },
  handler: async (ctx, { id, body }): Promise<string | null> => {
    const before: string | null = await ctx.runQuery(internal.messages.bodyOf, { id });
    try {
      await ctx.runMutation(api.messages.send, {
        channel: (await ctx.db.get(id))!.channel,
        author: (await ctx.db.get(id))!.author,
        body: "",
      });
    } catch (error) {
      console.warn("nested call failed", error instanceof ConvexError ? error.data : "?");
    }
    await ctx.db.patch(id, { body });
    return before;
  },
});

export const bodyOf = internalQuery({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => (await ctx.db.get(id))?.body ?? null,
});

export const remove = mutation({
  args: { id: v.id("messages") },
  handler: async (ctx, { id }) => await ctx.db.delete(id),
});

export const shout = action({
  args: { channel: v.id("channels"), author: v.id("users"), body: v.string() },
  handler: async (ctx, { channel, author, body }): Promise<string> => {
    console.info("shouting");
    await new Promise((resolve) => setTimeout(resolve, 10));
    const id = await ctx.runMutation(api.messages.send, { channel, author, body: body.toUpperCase() });
    return (await ctx.runQuery(internal.messages.bodyOf, { id }))!;
  },
});

export const fetchText = action({
  args: { url: v.string() },
  handler: async (_ctx, { url }): Promise<string> => await (await fetch(url)).text(),
});
