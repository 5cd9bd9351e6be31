import actionCache from "@convex-dev/action-cache/convex.config.js";
import actionRetrier from "@convex-dev/action-retrier/convex.config.js";
import crons from "@convex-dev/crons/convex.config.js";
import workflow from "@convex-dev/workflow/convex.config.js";
import workpool from "@convex-dev/workpool/convex.config.js";
import { defineApp } from "convex/server";

const app = defineApp();
app.use(workpool, { name: "widePool" });
app.use(workpool, { name: "serialPool" });
app.use(workflow);
app.use(actionRetrier);
app.use(actionCache);
app.use(crons);
export default app;
