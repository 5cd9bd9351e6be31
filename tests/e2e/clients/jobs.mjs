// Scheduled functions and a cron job of every second as a live client sees them.
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";

const print = (value) => console.log(JSON.stringify(value));
const client = new ConvexClient(process.argv[2]);

function until(what, query, args, wanted) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`never: ${what}`)), 20000);
    const stop = client.onUpdate(query, args, (value) => {
      if (wanted(value)) {
        clearTimeout(timer);
        setTimeout(() => stop());
        resolve(value);
      }
    });
  });
}

// The states of one job, pushed without asking.
const states = [];
const job = await client.mutation(api.jobs.later, { ms: 300, text: "live" });
const asked = Date.now();
const done = await until("the job's end", api.jobs.get, { id: job }, (value) => {
  if (states.at(-1) !== value.state.kind) states.push(value.state.kind);
  return value.state.kind === "success";
});
print({ states, took: Date.now() - asked, members: Object.keys(done).sort(), name: done.name, args: done.args });
await until("the note", api.jobs.notes, {}, (notes) => notes.includes("live"));

// Three ticks of the cron job.
const first = await until("ticks", api.jobs.ticks, {}, () => true);
const began = Date.now();
const third = await until("three more ticks", api.jobs.ticks, {}, (count) => count >= first + 3);
print({ ticks: third - first, seconds: (Date.now() - began) / 1000 });

// A live query while the deployment is paused: its error, and its value again, without asking.
const admin = (what) =>
  fetch(`${process.argv[2]}/api/v1/${what}_deployment`, { method: "POST", headers: { Authorization: `Convex ${process.argv[3]}` } });
const heard = [];
const changed = () => new Promise((resolve) => (changed.resolve = resolve));
const hear = (what) => (heard.push(what), changed.resolve?.());
let next = changed();
client.onUpdate(api.jobs.notes, {}, () => hear("value"), (error) => hear(error.message.includes("deployment is paused") ? "paused" : error.message));
await next;
for (const what of ["pause", "unpause"]) {
  next = changed();
  await admin(what);
  await next;
}
print({ heard });
await client.close();
process.exit(0);
