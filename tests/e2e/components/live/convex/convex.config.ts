import persistentTextStreaming from "@convex-dev/persistent-text-streaming/convex.config.js";
import presence from "@convex-dev/presence/convex.config.js";
import { defineApp } from "convex/server";

const app = defineApp();
app.use(presence);
app.use(persistentTextStreaming);
export default app;
