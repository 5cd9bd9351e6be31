import { Presence } from "@convex-dev/presence";
import { v } from "convex/values";
import { components } from "./_generated/api";
import { mutation, query } from "./_generated/server";

const presence = new Presence(components.presence);

export const heartbeat = mutation({
  args: { roomId: v.string(), userId: v.string(), sessionId: v.string(), interval: v.number() },
  handler: async (ctx, { roomId, userId, sessionId, interval }) => presence.heartbeat(ctx, roomId, userId, sessionId, interval),
});

export const list = query({ args: { roomToken: v.string() }, handler: async (ctx, { roomToken }) => presence.list(ctx, roomToken) });

export const disconnect = mutation({ args: { sessionToken: v.string() }, handler: async (ctx, { sessionToken }) => presence.disconnect(ctx, sessionToken) });

export const rooms = query({
  args: { userId: v.string() },
  handler: async (ctx, { userId }) => (await presence.listUser(ctx, userId, true)).map((one) => one.roomId),
});

export const people = query({
  args: { roomId: v.string() },
  handler: async (ctx, { roomId }) => (await presence.listRoom(ctx, roomId, true)).map((one) => one.userId).sort(),
});

export const say = mutation({
  args: { roomId: v.string(), userId: v.string(), data: v.any() },
  handler: async (ctx, { roomId, userId, data }) => presence.updateRoomUser(ctx, roomId, userId, data),
});

export const removeRoom = mutation({ args: { roomId: v.string() }, handler: async (ctx, { roomId }) => presence.removeRoom(ctx, roomId) });
