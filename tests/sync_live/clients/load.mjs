// Several BaseConvexClients under random load; prints what each transition showed and what was acknowledged, one JSON line each.
// Standard input: "stop" ends the load and answers {idle} when nothing is open; "values" prints all results; "close" ends.
import { createInterface } from "node:readline";
import { BaseConvexClient } from "convex/browser";

const [, , url, prefix, count, accounts, pause] = process.argv;
const print = (value) => console.log(JSON.stringify(value));
const silent = { logVerbose() {}, log() {}, warn() {}, error(...args) { print({ log: args.map(String).join(" ") }); } };
const ACCOUNTS = Number(accounts);
let stopping = false;
const random = (n) => Math.floor(Math.random() * n);
// The package's own toString of a timestamp reads the low half as a signed number.
const nanoseconds = (ts) => ((BigInt(ts.high >>> 0) << 32n) | BigInt(ts.low >>> 0)).toString();
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));

class Load {
  constructor(name) {
    this.name = name;
    this.open = 0;
    this.sent = 0;
    this.queries = { counter: ["bank:counter", {}], audit: ["bank:audit", { spin: 20 }], mine: ["bank:mine", { client: name }] };
    for (let n = 0; n < ACCOUNTS; n++) this.queries[`balance:${n}`] = ["bank:balance", { n }];
    this.client = new BaseConvexClient(url, () => {}, { skipConvexDeploymentUrlCheck: true, unsavedChangesWarning: false, logger: silent });
    this.client.addOnTransitionHandler((transition) => {
      print({ client: name, ts: nanoseconds(transition.timestamp), values: this.values() });
    });
    for (const [path, args] of Object.values(this.queries)) this.client.subscribe(path, args);
  }
  values() {
    const values = {};
    for (const [key, [path, args]] of Object.entries(this.queries)) {
      const value = this.client.localQueryResult(path, args);
      if (value !== undefined) values[key] = value;
    }
    return values;
  }
  async mutate() {
    const tag = `${this.name}.${this.sent++}`;
    print({ client: this.name, sent: tag });
    this.open++;
    try {
      const kind = random(3);
      let seq = null;
      if (kind === 0) {
        await this.client.mutation("bank:note", { client: this.name, tag });
      } else {
        const from = random(ACCOUNTS);
        const to = (from + 1 + random(ACCOUNTS - 1)) % ACCOUNTS;
        seq = await this.client.mutation("bank:transfer", { client: this.name, tag, from, to, amount: random(20) });
      }
      const { mine, counter } = this.values();
      print({ client: this.name, done: tag, seq, own: mine === undefined || mine.includes(tag), counter });
    } catch (error) {
      print({ client: this.name, failed: tag, message: error.message });
    } finally {
      this.open--;
    }
  }
  async run() {
    while (!stopping) {
      if (this.open < 4) void this.mutate();
      await sleep(Number(pause) * (0.5 + Math.random()));
    }
  }
}

const loads = Array.from({ length: Number(count) }, (_, i) => new Load(`${prefix}${i}`));
const running = Promise.all(loads.map((load) => load.run()));
createInterface({ input: process.stdin }).on("line", async (line) => {
  if (line === "stop") {
    stopping = true;
    await running;
    while (loads.some((load) => load.open > 0)) await sleep(10);
    print({ idle: true });
  } else if (line === "values") {
    print({ all: Object.fromEntries(loads.map((load) => [load.name, load.values()])) });
  } else if (line === "close") {
    await Promise.all(loads.map((load) => load.client.close()));
    process.exit(0);
  }
});
