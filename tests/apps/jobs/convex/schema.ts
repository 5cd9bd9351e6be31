import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  notes: defineTable({ text: v.string() }),
  ticks: defineTable({ job: v.string() }),
  // What the audit of kills counts: one row for each time that a job's writes were applied.
  applied: defineTable({ key: v.number(), kind: v.union(v.literal("mutation"), v.literal("action")) }).index("by_key", ["key"]),
  reminders: defineTable({ job: v.id("_scheduled_functions") }),
});
