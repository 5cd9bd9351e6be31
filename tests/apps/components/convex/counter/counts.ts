import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { action, env, internalMutation, mutation, query } from "./_generated/server";

const greetingAtImport = process.env.GREETING;

export const add = mutation({
  args: { name: v.string(), by: v.number() },
  returns: v.number(),
  handler: async (ctx, { name, by }) => {
    const known = await ctx.db
      .query("counts")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    const value = (known?.value ?? 0) + by;
    if (known === null) await ctx.db.insert("counts", { name, value });
    else await ctx.db.patch(known._id, { value });
    await ctx.runMutation(components.tally.notes.note, { text: `${name}=${value}` });
    if (by < 0) throw new Error("only upwards");
    return value;
  },
});

export const get = query({
  args: { name: v.string() },
  returns: v.number(),
  handler: async ({ db }, { name }) => {
    const known = await db
      .query("counts")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    return known?.value ?? 0;
  },
});

export const notes = query({
  args: {},
  returns: v.array(v.string()),
  handler: async (ctx): Promise<string[]> => ctx.runQuery(components.tally.notes.list, {}),
});

export const greeting = query({
  args: {},
  returns: v.array(v.union(v.string(), v.null())),
  handler: async () => [env.GREETING, greetingAtImport ?? null, process.env.SECRET ?? null, process.env.CONVEX_SITE_URL ?? null],
});

export const page = query({
  args: {},
  handler: async ({ db }) => db.query("counts").paginate({ numItems: 1, cursor: null }),
});

export const whoami = query({
  args: {},
  handler: async ({ auth }) => (await auth.getUserIdentity())?.subject ?? null,
});

export const where = query({
  args: {},
  handler: async (ctx) => (await ctx.meta.getFunctionMetadata()).componentPath,
});

export const secret = internalMutation({ args: {}, handler: async () => "secret" });

export const addByAction = action({
  args: { name: v.string() },
  returns: v.any(),
  handler: async (ctx, { name }): Promise<unknown> => {
    const secret: string = await ctx.runMutation(internal.counts.secret, {});
    const value: number = await ctx.runMutation(internal.counts.addInside, { name });
    return [secret, value, await ctx.runQuery(components.tally.notes.list, {})];
  },
});

export const addInside = internalMutation({
  args: { name: v.string() },
  returns: v.number(),
  handler: async ({ db }, { name }) => {
    await db.insert("counts", { name, value: 100 });
    return 100;
  },
});

export const addLater = mutation({
  args: { name: v.string() },
  returns: v.string(),
  handler: async (ctx, args): Promise<string> => ctx.scheduler.runAfter(0, internal.counts.addInside, args),
});

export const jobs = query({
  args: {},
  returns: v.array(v.string()),
  handler: async ({ db }) => (await db.system.query("_scheduled_functions").collect()).map((job) => `${job.name} ${job.state.kind}`),
});

export const store = action({
  args: { text: v.string() },
  returns: v.array(v.string()),
  handler: async ({ storage }, { text }) => {
    const id = await storage.store(new Blob([text], { type: "text/plain" }));
    return [id, (await storage.getUrl(id))!];
  },
});

export const tick = internalMutation({
  args: {},
  returns: v.null(),
  handler: async ({ db }) => {
    await db.insert("ticks", {});
    return null;
  },
});

export const ticks = query({ args: {}, returns: v.number(), handler: async ({ db }) => (await db.query("ticks").collect()).length });
