import { entsTableFactory, scheduledDeleteFactory } from "convex-ents";
import { customCtx, customMutation, customQuery } from "convex-helpers/server/customFunctions";
import { mutation as rawMutation, query as rawQuery } from "./_generated/server";
import { entDefinitions } from "./schema";

// Where convex-ents looks for it.
export const scheduledDelete = scheduledDeleteFactory(entDefinitions);

export const query = customQuery(rawQuery, customCtx(async (ctx) => ({ table: entsTableFactory(ctx, entDefinitions), db: undefined })));
export const mutation = customMutation(rawMutation, customCtx(async (ctx) => ({ table: entsTableFactory(ctx, entDefinitions), db: undefined })));
