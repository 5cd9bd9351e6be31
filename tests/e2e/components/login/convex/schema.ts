import { authTables } from "@convex-dev/auth/server";
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({ ...authTables, mails: defineTable({ to: v.string(), code: v.string() }).index("to", ["to"]) });
