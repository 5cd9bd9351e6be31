// Host half of an HTTP action's bodies, over the streams of its call (streams.mjs).
//
//   http.read   {streamId} -> {done} [chunk]      of the request     http.cancel {streamId}
//   http.write  {streamId} [chunk] -> {closed}    of the response    http.end {streamId}   http.fail {streamId, message}
//   http.closed {signal} -> {}                    answered when the client went away

const empty = { json: "{}", buffers: [] };

function clientOf(callState) {
  if (callState.client === undefined) {
    const client = { isGone: false, gone: null, leave: null };
    client.gone = new Promise((resolve) => {
      client.leave = () => {
        client.isGone = true;
        resolve();
      };
    });
    callState.client = client;
  }
  return callState.client;
}

/** The client of the run's request has gone away. */
export function clientClosed(callState) {
  clientOf(callState).leave();
}

/**
 * One operation of the family; see the head of this file.
 * @param {{kind: string, streams: import("./streams.mjs").Streams}} callState
 */
export async function httpOp(op, json, buffers, callState) {
  if (callState.kind !== "httpAction") throw new Error(`${op} is for HTTP actions`);
  const { streams } = callState;
  const args = JSON.parse(json);
  const stream = Number(args.streamId);
  switch (op) {
    case "http.read": {
      const chunk = await streams.read(stream);
      return chunk === null ? { json: '{"done":true}', buffers: [] } : { json: '{"done":false}', buffers: [chunk] };
    }
    case "http.cancel":
      streams.cancel(stream);
      return empty;
    case "http.write":
      // The action runs on, but nobody takes what it says: it need not leave this process.
      if (callState.client?.isGone === true) return { json: '{"closed":false}', buffers: [] };
      return { json: JSON.stringify({ closed: await streams.write(stream, buffers[0]) }), buffers: [] };
    case "http.end":
      streams.end(stream);
      return empty;
    case "http.fail":
      streams.fail(stream, args.message);
      return empty;
    case "http.closed":
      await clientOf(callState).gone;
      return empty;
    default:
      throw new Error(`Unknown host operation ${op}`);
  }
}
