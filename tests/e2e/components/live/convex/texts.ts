import { PersistentTextStreaming, type StreamId, StreamIdValidator } from "@convex-dev/persistent-text-streaming";
import { components } from "./_generated/api";
import { httpAction, mutation, query } from "./_generated/server";

const streaming = new PersistentTextStreaming(components.persistentTextStreaming);

export const create = mutation({ args: {}, handler: async (ctx) => streaming.createStream(ctx) });

export const body = query({ args: { streamId: StreamIdValidator }, handler: async (ctx, { streamId }) => streaming.getStreamBody(ctx, streamId as StreamId) });

export const remove = mutation({ args: { streamId: StreamIdValidator }, handler: async (ctx, { streamId }) => streaming.deleteStream(ctx, streamId as StreamId) });

export const write = httpAction(async (ctx, request) => {
  const { streamId, fail } = (await request.json()) as { streamId: string; fail?: boolean };
  const response = await streaming.stream(ctx, request, streamId as StreamId, async (_ctx, _request, _id, append) => {
    for (const part of ["Once upon a time.", " There was", " a database.", " The end"]) {
      await append(part);
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    if (fail) throw new Error("out of words");
  });
  response.headers.set("Access-Control-Allow-Origin", "*");
  return response;
});
