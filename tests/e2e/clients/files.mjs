// An app's way with files: upload by fetch, subscribe to a list with URLs, fetch, delete.
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";

const print = (value) => console.log(JSON.stringify(value));
const address = process.argv[2];
const api = anyApi;
const watcher = new ConvexClient(address);
const client = new ConvexHttpClient(address);

function until(wanted) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no such update")), 20000);
    const stop = watcher.onUpdate(api.files.list, {}, (value) => {
      if (wanted(value)) {
        clearTimeout(timer);
        stop();
        resolve(value);
      }
    });
  });
}

const bytes = new Uint8Array(300_000).map((_, i) => i & 255);
const uploadUrl = await client.mutation(api.files.generateUploadUrl, {});
const caption = `picture ${Math.random()}`;
const answer = await fetch(uploadUrl, { method: "POST", headers: { "Content-Type": "image/png" }, body: new Blob([bytes]) });
const { storageId } = await answer.json();
await client.mutation(api.files.add, { file: storageId, caption });
const mine = (list) => list.find((one) => one.caption === caption);
const { url, file } = mine(await until((list) => mine(list)?.url));
print({ status: answer.status, id: file._id === storageId, size: file.size, contentType: file.contentType, sha256: file.sha256 });

const fetched = await fetch(url);
const got = new Uint8Array(await fetched.arrayBuffer());
const part = await fetch(url, { headers: { Range: "bytes=256-259" } });
const same = await fetch(url, { headers: { "If-None-Match": fetched.headers.get("etag") } });
print({
  same: got.length === bytes.length && got.every((byte, i) => byte === bytes[i]),
  type: fetched.headers.get("content-type"),
  digest: fetched.headers.get("digest"),
  part: [part.status, ...new Uint8Array(await part.arrayBuffer())],
  conditional: same.status,
});

// A subscription sees the file go; its row in the app stays.
const gone = until((list) => mine(list)?.url === null);
await client.mutation(api.files.remove, { id: storageId });
const after = mine(await gone);
print({ url: after.url, file: after.file, status: (await fetch(url)).status });
await watcher.close();
