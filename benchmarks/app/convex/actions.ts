import { v } from "convex/values";
import { action } from "./_generated/server";

/** As little as an action can do. */
export const nothing = action({ args: { n: v.number() }, handler: async (_, { n }) => n });
