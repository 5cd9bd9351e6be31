import aggregate from "@convex-dev/aggregate/convex.config.js";
import geospatial from "@convex-dev/geospatial/convex.config.js";
import migrations from "@convex-dev/migrations/convex.config.js";
import { defineApp } from "convex/server";

const app = defineApp();
app.use(aggregate, { name: "scores" });
app.use(aggregate, { name: "scoresByPlayer" });
app.use(aggregate, { name: "numbers" });
app.use(migrations);
app.use(geospatial);
export default app;
