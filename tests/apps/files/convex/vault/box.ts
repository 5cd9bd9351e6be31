// A component with files of its own.
import { v } from "convex/values";
import { action, mutation, query } from "./_generated/server";

export const put = action({
  args: { text: v.string() },
  returns: v.string(),
  handler: async ({ storage }, { text }) => await storage.store(new Blob([text], { type: "text/plain" })),
});

export const generateUploadUrl = mutation({
  args: {},
  returns: v.string(),
  handler: async ({ storage }) => await storage.generateUploadUrl(),
});

export const look = query({
  args: { id: v.string() },
  handler: async ({ storage, db }, { id }) => ({
    url: await storage.getUrl(id),
    all: (await db.system.query("_storage").collect()).map((one) => one._id as string),
  }),
});

export const remove = mutation({
  args: { id: v.string() },
  returns: v.null(),
  handler: async ({ storage }, { id }) => {
    await storage.delete(id);
    return null;
  },
});
