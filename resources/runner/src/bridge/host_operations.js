// bridge.hostOp: crypto, fetch, bodies.
//
// Of an action, requests that wait for their response are operations like its calls: at most 8 of all these at once (runtime.md 2.4). What moves the
// bodies is not counted.

let operations = 0; // not delivered yet
let firstOperation = null;
let lastOperation = null;
let unsentOperation = null;
let waitingFetch = null; // requests that the host has not taken yet
let lastWaitingFetch = null;
let nextOperation = 1;
let incoming = create(null); // buffers of the result that is being handed in
let incomingCount = 0;

/** `start` and `end` are of the first buffer. What the host gets are copies that nothing else in the context can reach. */
function hostOp(name, json, buffers, start = 0, end = undefined) {
  return new NativePromise((resolve, reject) => {
    if (ended) return;
    const operation = {
      __proto__: null,
      id: nextOperation++, name: NativeString(name), json: NativeString(json), count: 0, resolve, reject,
      buffers: create(null), state: 0, resultJson: "", resultBuffers: null, error: "", errorName: "", next: null, nextUnsent: null,
    };
    if (buffers !== undefined) {
      for (let i = 0; i < buffers.length; i++) {
        operation.buffers[operation.count++] = apply(arrayBufferSlice, buffers[i], i === 0 ? [start, end] : [0]);
      }
    }
    if (lastOperation === null) firstOperation = operation;
    else lastOperation.next = operation;
    lastOperation = operation;
    operations++;
    if (operation.name === "fetch") {
      if (waitingFetch === null) waitingFetch = operation;
      else lastWaitingFetch.nextUnsent = operation;
      lastWaitingFetch = operation;
      return;
    }
    if (unsentOperation === null) unsentOperation = operation;
    else lastUnsentOperation.nextUnsent = operation;
    lastUnsentOperation = operation;
  });
}
let lastUnsentOperation = null;

/** The next operation that the host may start, or null. */
function takeOperation() {
  let taken = unsentOperation;
  if (taken !== null) {
    unsentOperation = taken.nextUnsent;
  } else if (waitingFetch !== null && inFlight < 8) {
    taken = waitingFetch;
    waitingFetch = taken.nextUnsent;
    inFlight++;
  }
  return taken;
}

function operationsReady() {
  if (isLive()) {
    for (let one = firstOperation; one !== null; one = one.next) if (one.state !== 0) return true;
    return false;
  }
  // Queries and mutations see results in the order of the calls, all of a turn together.
  if (firstOperation === null) return false;
  for (let one = firstOperation; one !== null; one = one.next) if (one.state === 0) return false;
  return true;
}

function deliverOperations() {
  let kept = null;
  let lastKept = null;
  for (let one = firstOperation; one !== null; ) {
    const { next } = one;
    one.next = null;
    if (one.state === 0) {
      if (lastKept === null) kept = one;
      else lastKept.next = one;
      lastKept = one;
    } else {
      operations--;
      if (one.state === 1) {
        one.resolve({ json: one.resultJson, buffers: one.resultBuffers });
      } else {
        const error = new NativeError(one.error);
        if (one.errorName !== "") hidden(error, "errorName", one.errorName);
        one.reject(error);
      }
    }
    one = next;
  }
  firstOperation = kept;
  lastOperation = lastKept;
}
