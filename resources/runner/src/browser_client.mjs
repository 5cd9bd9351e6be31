// What a page needs of npm's `convex`: the live client and references to functions by name.
export { ConvexClient } from "convex/browser";
export { anyApi } from "convex/server";
