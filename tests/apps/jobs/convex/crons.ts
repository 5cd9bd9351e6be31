import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();
crons.interval("tick", { seconds: 1 }, internal.jobs.tick, { job: "tick" });
crons.daily("nightly", { hourUTC: 3, minuteUTC: 30 }, internal.jobs.tick, { job: "nightly" });
crons.cron("last friday", "0 18 * * FRIL", internal.jobs.act, { key: -1 });
export default crons;
