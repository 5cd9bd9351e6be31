// setAuth of ConvexReactClient and ConvexClient against a local issuer: login, refresh, another user, logout; ConvexHttpClient.
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { ConvexReactClient } from "convex/react";
import { anyApi as api } from "convex/server";

const [, , url, issuer] = process.argv;
const print = (value) => console.log(JSON.stringify(value));
const token = async (query) => (await fetch(`${issuer}/token?${query}`)).json();
const options = { skipConvexDeploymentUrlCheck: true };
async function until(what, check) {
  for (let i = 0; i < 1500; i++) {
    if (check()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}

// A React client without hooks: the watch is what useQuery is made of.
const react = new ConvexReactClient(url, options);
const seen = [];
const watch = react.watchQuery(api.users.me, {});
watch.onUpdate(() => seen.push(watch.localQueryResult()?.email ?? null));
await until("anonymous", () => seen.length === 1);
const changes = [];
let fetched = 0;
// Valid for twelve seconds: the client refreshes ten seconds before the end.
react.setAuth(async () => (fetched++, token("user=ada&seconds=12&email=ada@example.com")), (is) => changes.push(is));
await until("ada", () => seen.at(-1) === "ada@example.com");
print({ login: changes[0], joined: await react.mutation(api.users.join, {}), acted: await react.action(api.users.act, {}) });
// After the login itself npm asks for a fresh token at once; the third is the scheduled refresh.
await until("refreshed", () => fetched >= 3);
await new Promise((resolve) => setTimeout(resolve, 300));
print({ seen, refreshed: true, still: (await react.query(api.users.me, {})).email });
react.setAuth(() => token("user=bob&email=bob@example.com"), () => {});
await until("bob", () => seen.at(-1) === "bob@example.com");
print({ seen });
await react.close();

// Logout. With the option npm fetches no fresh token right after the login, which would log in again if it came after clearAuth.
const leaving = new ConvexReactClient(url, { ...options, initialAuthTokenReuse: true });
const shown = [];
const view = leaving.watchQuery(api.users.me, {});
view.onUpdate(() => shown.push(view.localQueryResult()?.subject ?? null));
leaving.setAuth(() => token("user=bob"), () => {});
await until("bob again", () => shown.at(-1) === "bob");
leaving.clearAuth();
await until("nobody", () => shown.at(-1) === null);
print({ left: shown.at(-1), asked: await leaving.query(api.users.me, {}) });
await leaving.close();

// A token that no provider answers for: the client is told, drops it and goes on as nobody.
const plain = new ConvexClient(url, options);
const states = [];
plain.setAuth(() => token("aud=other"), (is) => states.push(is));
await until("rejected", () => states.includes(false));
print({ rejected: await plain.query(api.users.me, {}) });
plain.setAuth(() => token("kind=custom&role=admin&user=eve"), (is) => states.push(is));
await until("accepted", () => states.at(-1) === true);
print({ custom: await plain.query(api.users.me, {}) });
await plain.close();

const http = new ConvexHttpClient(url);
http.setAuth(await token("user=hal"));
print({ http: (await http.query(api.users.me, {})).subject, mutation: await http.mutation(api.users.join, {}) });
for (const query of ["seconds=-60", "kind=custom&seconds=-60", "kind=custom&iss=http://nobody.example"]) {
  http.setAuth(await token(query));
  try {
    await http.query(api.users.me, {});
  } catch (error) {
    print(JSON.parse(error.message));
  }
}
http.clearAuth();
print({ anonymous: await http.query(api.users.me, {}) });
process.exit(0);
