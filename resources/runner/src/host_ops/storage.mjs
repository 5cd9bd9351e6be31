// Host half of ctx.storage.store and .get in actions: the content goes in pieces over a stream of the call (streams.mjs), the rest by a syscall.
//
//   storage.store {contentType, sha256, requestId} [bytes] -> storage id      syscall storage/store {stream, contentType, sha256}
//   storage.get   {storageId, requestId} -> {contentType} [bytes] | null      syscall storage/get {stream, storageId}

/** Streams of HTTP bodies have smaller numbers. */
const FIRST_STREAM = 1 << 20;
/** What a blob may have: the same limit as in Python, where it is refused with a text. */
const MAX_BYTES = 64 << 20;

function nextStream(callState) {
  callState.nextStorageStream ??= FIRST_STREAM;
  return callState.nextStorageStream++;
}

async function store({ contentType, sha256 }, bytes, callState) {
  const { streams } = callState;
  const stream = nextStream(callState);
  const stored = callState.syscall("storage/store", JSON.stringify({ stream, contentType, sha256 }));
  // The answer may be an error that comes before all is sent; then nobody reads the stream any more, and writing ends.
  stored.catch(() => undefined);
  const closed = bytes.byteLength > 0 && (await streams.write(stream, bytes));
  if (!closed) streams.end(stream);
  return { json: await stored, buffers: [] };
}

/** One content of a run is fetched at a time: it is whole in this process before the script has it. */
function get(args, callState) {
  const turn = (callState.storageTurn ?? Promise.resolve()).then(() => fetchContent(args, callState));
  callState.storageTurn = turn.catch(() => undefined);
  return turn;
}

async function fetchContent({ storageId }, callState) {
  const { streams } = callState;
  const stream = nextStream(callState);
  const chunks = [];
  const head = callState.syscall("storage/get", JSON.stringify({ stream, storageId }));
  let total = 0;
  const reading = (async () => {
    for (;;) {
      const chunk = await streams.read(stream);
      if (chunk === null) return;
      total += chunk.byteLength;
      if (total > MAX_BYTES) {
        streams.cancel(stream);
        return;
      }
      // A frame's bytes are a view of what was read from the socket, which would be kept whole.
      chunks.push(Buffer.from(chunk));
    }
  })();
  // When the syscall fails, nobody waits for the content.
  reading.catch(() => undefined);
  const found = JSON.parse(await head);
  if (found === null) return { json: "null", buffers: [] };
  await reading;
  if (total !== found.size) throw new Error("The file could not be read");
  return { json: JSON.stringify({ contentType: found.contentType }), buffers: [Buffer.concat(chunks, total)] };
}

/**
 * One operation of the family; see the head of this file.
 * @param {{streams: import("./streams.mjs").Streams, syscall: (op: string, args: string) => Promise<string>}} callState
 */
export function storageOp(op, json, buffers, callState) {
  if (callState.kind !== "action" && callState.kind !== "httpAction") throw new Error(`${op} is for actions`);
  const args = JSON.parse(json);
  if (op === "storage.store") return store(args, buffers[0], callState);
  if (op === "storage.get") return get(args, callState);
  throw new Error(`Unknown host operation ${op}`);
}
