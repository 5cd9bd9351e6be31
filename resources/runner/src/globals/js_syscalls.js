// Convex.jsSyscall: calls whose arguments or results are objects of the context (runtime.md 2.3, 2.5).
//
//   http.read {streamId} -> {done} [chunk]        http.closed {signal} -> {}   answered when the client went away
//   http.cancel {streamId}
//   http.write {streamId} [chunk] -> {closed}     http.end {streamId}          http.fail {streamId, message}
//   storage.store {contentType, sha256, requestId} [bytes] -> storage id      storage.get {storageId, requestId} -> {contentType} [bytes] | null
import { chunkBytes, sendChunk } from "./support/webidl.js";

let lastStream = 0;

function incoming(streamId) {
  const json = JSON.stringify({ streamId });
  return use("fetch").incomingBody(
    async () => {
      const answer = await bridge.hostOp("http.read", json);
      return JSON.parse(answer.json).done ? null : new Uint8Array(answer.buffers[0]);
    },
    async () => {
      await bridge.hostOp("http.cancel", json);
    },
  );
}

function requestFromConvexJson({ convexJson }) {
  const { headerPairs, url, method, streamId, signal } = convexJson;
  return use("fetch").incomingRequest({
    url,
    method,
    headers: headerPairs,
    body: streamId === null || streamId === undefined ? null : incoming(streamId),
    watch(abort) {
      bridge.hostOp("http.closed", JSON.stringify({ signal })).then(
        () => abort(),
        () => undefined,
      );
    },
  });
}

async function pump(body, streamId) {
  const json = JSON.stringify({ streamId });
  if (body.bytes !== undefined) {
    if (body.bytes.byteLength > 0) await sendChunk("http.write", json, body.bytes);
    await bridge.hostOp("http.end", json);
    bridge.responseEnded(streamId);
    return;
  }
  const reader = body.stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const answer = await sendChunk("http.write", json, value);
      if (JSON.parse(answer.json).closed) {
        await reader.cancel();
        bridge.responseEnded(streamId);
        return;
      }
    }
  } catch (error) {
    await bridge.hostOp("http.fail", JSON.stringify({ streamId, message: String(error?.message ?? error) }));
    throw error;
  }
  await bridge.hostOp("http.end", json);
  bridge.responseEnded(streamId);
}

function convexJsonFromResponse({ response }) {
  const { Response, outgoingBody } = use("fetch");
  if (!(response instanceof Response)) throw new Error("HTTP actions must return a Response");
  const pairs = use("headers").headerPairs(response.headers);
  const body = outgoingBody(response);
  const answer = { headerPairs: pairs, status: response.status, streamId: null };
  if (response.url !== "") answer.url = response.url;
  if (body === null) return answer;
  if (body.bytes !== undefined && !response.headers.has("content-length")) {
    pairs.push(["content-length", String(body.bytes.byteLength)]);
  }
  answer.streamId = String(++lastStream);
  // A stream that fails after the head ends the run as an unhandled rejection, like any other error nobody handles.
  void pump(body, answer.streamId);
  return answer;
}

async function storeBlob({ requestId, blob, options }) {
  const bytes = use("blob").blobBytes(blob);
  if (bytes === null) throw new TypeError("storage.store: the value is not of type 'Blob'.");
  const refusal = bridge.refusal("storage.store()");
  if (refusal !== null) throw refusal;
  const json = JSON.stringify({ requestId, contentType: blob.type === "" ? null : blob.type, sha256: options?.sha256 });
  const answer = await bridge.hostOp("storage.store", json, [chunkBytes(bytes)]);
  return JSON.parse(answer.json);
}

async function getBlob({ requestId, storageId }) {
  const refusal = bridge.refusal("storage.get()");
  if (refusal !== null) throw refusal;
  const answer = await bridge.hostOp("storage.get", JSON.stringify({ requestId, storageId }));
  const found = JSON.parse(answer.json);
  if (found === null) return null;
  return use("blob").blobOf(new Uint8Array(answer.buffers[0]), found.contentType ?? "");
}

export const jsSyscalls = {
  requestFromConvexJson,
  convexJsonFromResponse,
  "storage/storeBlob": storeBlob,
  "storage/getBlob": getBlob,
};
