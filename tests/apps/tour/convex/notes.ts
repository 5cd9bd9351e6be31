import { v } from "convex/values";
import { components } from "./_generated/api";
import { internalMutation, internalQuery, mutation, query } from "./_generated/server";

export const list = query({
  args: {},
  returns: v.array(v.string()),
  handler: async (ctx) => (await ctx.db.query("notes").collect()).map((note) => note.body),
});

export const add = mutation({
  args: { body: v.string() },
  handler: async (ctx, { body }) => {
    console.log("adding", body);
    if (body === "") throw new Error("an empty note");
    const raw = new TextEncoder().encode(body).buffer;
    await ctx.db.insert("notes", { body, size: BigInt(body.length), raw });
    return await ctx.runMutation(components.shelf.books.put, { title: body });
  },
});

export const clear = internalMutation({
  args: {},
  handler: async (ctx) => {
    for (const note of await ctx.db.query("notes").collect()) await ctx.db.delete(note._id);
  },
});

export const hidden = internalQuery({
  args: {},
  handler: async (ctx) => (await ctx.auth.getUserIdentity())?.name ?? "nobody",
});

export const mood = query({ args: {}, handler: async () => process.env.MOOD ?? "none" });
