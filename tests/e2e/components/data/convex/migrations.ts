import { Migrations, runToCompletion } from "@convex-dev/migrations";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { action, mutation, query } from "./_generated/server";
import schema from "./schema";

const migrations = new Migrations(components.migrations, { schema });

export const countLetters = migrations.define({
  table: "people",
  batchSize: 10,
  migrateOne: async (ctx, doc) => {
    if (doc.letters === undefined) await ctx.db.patch(doc._id, { letters: doc.name.length });
  },
});

export const regroup = migrations.define({
  table: "people",
  parallelize: true,
  customRange: (range) => range.withIndex("by_group", (q) => q.eq("group", "old")),
  migrateOne: () => ({ group: "new" }),
});

export const failing = migrations.define({
  table: "people",
  migrateOne: async (_ctx, doc) => {
    throw new Error(`cannot change ${doc.name}`);
  },
});

export const run = migrations.runner();

export const runAll = migrations.runner([internal.migrations.countLetters, internal.migrations.regroup]);

export const seed = mutation({
  args: { count: v.number() },
  handler: async (ctx, { count }) => {
    for (let i = 0; i < count; i++) await ctx.db.insert("people", { name: "x".repeat((i % 7) + 1), group: i % 2 ? "old" : "young" });
  },
});

export const state = query({
  args: {},
  handler: async (ctx) => {
    const people = await ctx.db.query("people").collect();
    return {
      counted: people.filter((one) => one.letters === one.name.length).length,
      old: people.filter((one) => one.group === "old").length,
      new: people.filter((one) => one.group === "new").length,
    };
  },
});

export const begin = mutation({
  args: {},
  handler: async (ctx) => {
    await migrations.runSerially(ctx, [internal.migrations.countLetters, internal.migrations.regroup]);
  },
});

export const status = query({
  args: {},
  handler: async (ctx) => (await migrations.getStatus(ctx, { limit: 10 })).map(({ name, state, processed }) => [name, state, processed]),
});

export const complete = action({
  args: {},
  handler: async (ctx): Promise<string> => (await runToCompletion(ctx, components.migrations, internal.migrations.regroup, { cursor: null })).state,
});

export const beginFailing = mutation({
  args: {},
  handler: async (ctx) => {
    await migrations.runOne(ctx, internal.migrations.failing);
  },
});
