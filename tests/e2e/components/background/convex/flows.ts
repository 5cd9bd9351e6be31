import { WorkflowManager, defineEvent, vWorkflowId } from "@convex-dev/workflow";
import { vResultValidator } from "@convex-dev/workpool";
import { v } from "convex/values";
import { components, internal } from "./_generated/api";
import { action, internalAction, internalMutation, internalQuery, mutation, query } from "./_generated/server";

const workflow = new WorkflowManager(components.workflow, {
  workpoolOptions: {
    maxParallelism: 5,
    defaultRetryBehavior: { maxAttempts: 4, initialBackoffMs: 20, base: 1.5 },
    retryActionsByDefault: false,
  },
});
const approval = defineEvent({ name: "approval", validator: v.object({ by: v.string() }) });

export const greeting = internalQuery({ args: { name: v.string() }, handler: async (_ctx, { name }) => `hello ${name}` });

export const shout = internalAction({ args: { text: v.string() }, handler: async (_ctx, { text }) => text.toUpperCase() });

// Query, action, mutation, steps in parallel, a nested workflow, a sleep, an event; deterministic time and chance.
export const order = workflow
  .define({ args: { key: v.string() }, returns: v.object({ text: v.string(), lengths: v.array(v.number()), by: v.string(), same: v.boolean() }) })
  .handler(async (step, { key }): Promise<{ text: string; lengths: number[]; by: string; same: boolean }> => {
    const chance = Math.random();
    const began = Date.now();
    const hello = await step.runQuery(internal.flows.greeting, { name: key });
    const text = await step.runAction(internal.flows.shout, { text: hello }, { retry: true });
    await step.runMutation(internal.events.record, { key, what: "recorded", value: chance });
    await step.runMutation(internal.events.record, { key, what: "inline", value: began }, { inline: true });
    const lengths = await Promise.all(["a", "bb", "ccc"].map((one) => step.runWorkflow(internal.flows.measure, { text: one })));
    await step.sleep(50);
    const { by } = await step.awaitEvent(approval);
    await step.runMutation(internal.events.record, { key, what: "recorded", value: chance });
    return { text, lengths, by, same: began <= Date.now() };
  });

export const measure = workflow.define({ args: { text: v.string() }, returns: v.number() }).handler(async (step, { text }): Promise<number> => {
  const loud = await step.runAction(internal.flows.shout, { text });
  return loud.length;
});

export const failing = workflow.define({ args: { key: v.string(), failures: v.number() } }).handler(async (step, { key, failures }): Promise<void> => {
  const caught = await step
    .runAction(internal.pools.flaky, { key: `${key} caught`, failures: 1 })
    .then(() => "nothing", (error: Error) => error.message);
  await step.runMutation(internal.events.record, { key, what: "caught", value: caught });
  await step.runAction(internal.pools.flaky, { key, failures });
});

export const forever = workflow.define({ args: { key: v.string() } }).handler(async (step, { key }): Promise<void> => {
  await step.runMutation(internal.events.record, { key, what: "waiting" });
  await step.awaitEvent({ name: "never" });
});

export const completed = internalMutation({
  args: { workflowId: vWorkflowId, result: vResultValidator, context: v.object({ key: v.string() }) },
  handler: async (ctx, { result, context }) => {
    const value = result.kind === "success" ? result.returnValue : result.kind === "failed" ? result.error : null;
    await ctx.db.insert("events", { key: context.key, what: result.kind, value });
  },
});

export const start = mutation({
  args: { name: v.union(v.literal("order"), v.literal("forever")), key: v.string() },
  handler: async (ctx, { name, key }): Promise<string> =>
    workflow.start(ctx, internal.flows[name], { key }, { onComplete: internal.flows.completed, context: { key } }),
});

export const startInAction = action({
  args: { key: v.string(), failures: v.number() },
  handler: async (ctx, args): Promise<string> =>
    workflow.start(ctx, internal.flows.failing, args, { onComplete: internal.flows.completed, context: { key: args.key }, startAsync: true }),
});

export const approve = mutation({
  args: { id: vWorkflowId, by: v.string() },
  handler: async (ctx, { id, by }) => {
    await workflow.sendEvent(ctx, { ...approval, workflowId: id, value: { by } });
  },
});

export const status = query({ args: { id: vWorkflowId }, handler: async (ctx, { id }) => workflow.status(ctx, id) });

export const steps = query({
  args: { id: vWorkflowId },
  handler: async (ctx, { id }) => (await workflow.listSteps(ctx, id)).page.map((step) => [step.name, step.kind]),
});

export const named = query({
  args: { name: v.string() },
  handler: async (ctx, { name }) => (await workflow.listByName(ctx, name)).page.length,
});

export const restart = mutation({
  args: { id: vWorkflowId },
  handler: async (ctx, { id }): Promise<void> => workflow.restart(ctx, id, { from: internal.pools.flaky, startAsync: true }),
});

export const cancel = mutation({ args: { id: vWorkflowId }, handler: async (ctx, { id }) => workflow.cancel(ctx, id) });

export const cleanup = mutation({ args: { id: vWorkflowId }, handler: async (ctx, { id }): Promise<boolean> => workflow.cleanup(ctx, id) });
