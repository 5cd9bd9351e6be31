import { DirectAggregate, TableAggregate } from "@convex-dev/aggregate";
import { customCtx, customMutation } from "convex-helpers/server/customFunctions";
import { Triggers } from "convex-helpers/server/triggers";
import { v } from "convex/values";
import { components } from "./_generated/api";
import type { DataModel } from "./_generated/dataModel";
import { action, mutation as rawMutation, query } from "./_generated/server";

const scores = new TableAggregate<{ Key: number; DataModel: DataModel; TableName: "scores" }>(components.scores, {
  sortKey: (doc) => doc.points,
  sumValue: (doc) => doc.points,
});
const byPlayer = new TableAggregate<{ Namespace: string; Key: number; DataModel: DataModel; TableName: "scores" }>(components.scoresByPlayer, {
  namespace: (doc) => doc.player,
  sortKey: (doc) => doc.points,
  sumValue: (doc) => doc.points,
});
const numbers = new DirectAggregate<{ Key: [string, number]; Id: string }>(components.numbers);

const triggers = new Triggers<DataModel>();
triggers.register("scores", scores.trigger());
triggers.register("scores", byPlayer.trigger());
const mutation = customMutation(rawMutation, customCtx(triggers.wrapDB));

export const add = mutation({
  args: { player: v.string(), points: v.array(v.number()) },
  handler: async (ctx, { player, points }) => {
    for (const one of points) await ctx.db.insert("scores", { player, points: one });
  },
});

export const change = mutation({
  args: { from: v.number(), to: v.union(v.number(), v.null()) },
  handler: async (ctx, { from, to }) => {
    const all = await ctx.db.query("scores").filter((q) => q.eq(q.field("points"), from)).collect();
    for (const { _id } of all) {
      if (to === null) await ctx.db.delete(_id);
      else await ctx.db.patch(_id, { points: to });
    }
  },
});

export const summary = query({
  args: {},
  handler: async (ctx) => {
    const page = await scores.paginate(ctx, { order: "desc", pageSize: 3 });
    return {
      count: await scores.count(ctx),
      sum: await scores.sum(ctx),
      high: await scores.count(ctx, { bounds: { lower: { key: 65, inclusive: false } } }),
      median: (await scores.at(ctx, Math.floor((await scores.count(ctx)) / 2))).key,
      rank: await scores.indexOf(ctx, 70, { order: "desc" }),
      max: (await scores.max(ctx))?.key ?? null,
      min: (await scores.min(ctx))?.key ?? null,
      best: page.page.map((one) => one.key),
      chosen: (await scores.random(ctx)) !== null,
      ends: await scores.sumBatch(ctx, [{ bounds: { upper: { key: 20, inclusive: true } } }, { bounds: { lower: { key: 90, inclusive: true } } }]),
    };
  },
});

export const ofPlayer = query({
  args: { player: v.string() },
  handler: async (ctx, { player }) => [
    await byPlayer.count(ctx, { namespace: player }),
    await byPlayer.sum(ctx, { namespace: player }),
    (await byPlayer.max(ctx, { namespace: player }))?.key ?? null,
  ],
});

export const direct = action({
  args: { start: v.number(), end: v.number() },
  handler: async (ctx, { start, end }) => {
    for (let i = start; i < end; i++) await numbers.insert(ctx, { key: [i % 2 ? "odd" : "even", i], id: `n${i}`, sumValue: i });
    return await numbers.count(ctx, { bounds: { prefix: ["odd"] } });
  },
});

export const total = query({ args: {}, handler: async (ctx) => [await numbers.count(ctx), await numbers.sum(ctx, { bounds: { prefix: ["even"] } })] });

export const clear = rawMutation({ args: {}, handler: async (ctx) => numbers.clear(ctx) });
