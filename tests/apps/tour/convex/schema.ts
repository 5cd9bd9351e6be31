import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  notes: defineTable({
    body: v.string(),
    size: v.int64(),
    raw: v.bytes(),
  }).index("by_body", ["body"]),
});
