import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  users: defineTable({
    name: v.string(),
    joined: v.optional(v.number()),
  }).index("by_name", ["name"]),
  channels: defineTable({
    name: v.string(),
    topic: v.union(v.string(), v.null()),
  }).index("by_name", ["name"]),
  messages: defineTable({
    channel: v.id("channels"),
    author: v.id("users"),
    body: v.string(),
    likes: v.number(),
    size: v.optional(v.int64()),
  })
    .index("by_channel", ["channel"])
    .index("by_channel_and_likes", ["channel", "likes"])
    .index("by_author", ["author"]),
});
