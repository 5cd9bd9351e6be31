import { v } from "convex/values";
import { internalMutation, mutation, query } from "./_generated/server";

export const note = mutation({
  args: { text: v.string() },
  returns: v.number(),
  handler: async ({ db }, { text }) => {
    await db.insert("notes", { text });
    return (await db.query("notes").collect()).length;
  },
});

export const list = query({
  args: {},
  returns: v.array(v.string()),
  handler: async ({ db }) => (await db.query("notes").collect()).map((one) => one.text),
});

export const hidden = internalMutation({ args: {}, handler: async () => "hidden" });
