// What the host may call, and how a run goes.

const kindNames = { __proto__: null, query: "Query", mutation: "Mutation", action: "Action" };
async function settle(promise, resultName) {
  try {
    const result = await promise;
    if (ended) return;
    if (typeof result !== "string") {
      failPlainly(`Function ${resultName} returned a result that is not text. Did you forget to wrap it with \`query\`, \`mutation\` or \`action\`?`);
      return;
    }
    value = result;
    settled = 1;
    if (head === null && operations === 0) runEndCallbacks();
  } catch (error) {
    if (!ended) fail(error);
  }
}
function runEndCallbacks() {
  for (let i = 0; i < endCallbacks.count; i++) guarded(endCallbacks[i]);
  endCallbacks.count = 0;
}

function mismatch(name, exported) {
  const is = (flag) => guarded(() => exported[flag]) === true;
  const registered = is("isQuery") ? "query" : is("isMutation") ? "mutation" : is("isAction") ? "action" : is("isHttp") ? "HTTP action" : null;
  if (kind === "action") {
    if (registered === null) return `Function ${name} is not an action. Did you forget to wrap it with \`action\`?`;
  } else if (registered === null || registered === "action" || registered === "HTTP action") {
    return `Function ${name} is neither a query or mutation. Did you forget to wrap it with \`query\` or \`mutation\`?`;
  }
  if (registered === kind) return null;
  return `Function ${name} is registered as a ${registered} but is being run as ${kind === "action" ? "an action" : `a ${kind}`}.`;
}

// An HTTP action: the route first, then the head of the response, then its body, with which the run ends (runtime.md 1.6, 9.10).
let httpRoute = ""; // "GET /path", until the host takes it
let httpHead = ""; // JSON text of status, headers and stream, until the host takes it
let httpStream = null; // id of the body that the client gets
let endedStreams = create(null);

function responseEnded(streamId) {
  endedStreams[streamId] = true;
  if (streamId === httpStream && settled === 0) settled = 1;
}
/** Whether a value made of JSON is what convexJsonFromResponse gives: a router of the user's own may say anything. */
function isResponseHead(answer) {
  if (typeof answer !== "object" || answer === null) return false;
  const { status, headerPairs, streamId } = answer;
  if (!(typeof status === "number" && status >= 200 && status <= 599 && floor(status) === status && isArray(headerPairs))) return false;
  for (let i = 0; i < headerPairs.length; i++) {
    const pair = headerPairs[i];
    if (!isArray(pair) || typeof pair[0] !== "string" || typeof pair[1] !== "string") return false;
  }
  return streamId === null || streamId === undefined || (typeof streamId === "string" && apply(regExpExec, streamNumber, [streamId]) !== null);
}
const streamNumber = /^[1-9][0-9]{0,8}$/;
async function settleHttp(promise) {
  try {
    const text = await promise;
    if (ended) return;
    if (typeof text !== "string") {
      failPlainly("The router of `convex/http.js` returned a result that is not text.");
      return;
    }
    const answer = parseJson(text);
    if (!isResponseHead(answer)) {
      failPlainly("The router of `convex/http.js` returned a result that is not a response.");
      return;
    }
    httpHead = text;
    value = "null";
    httpStream = answer.streamId ?? "";
    if (httpStream === "" || endedStreams[httpStream] === true) settled = 1;
  } catch (error) {
    if (!ended) fail(error);
  }
}

// What the host may call. Arguments and results are primitives, except where a function or buffer made in this context goes back into it.
return freeze({
  __proto__: null,

  begin(newKind, newWhere, newImportMs, newImportSeed, newNowMs, newSeed, newEnvironment, newRule, newTables, newSnapshot, newAhead, newArguments) {
    kind = newKind;
    where = newWhere;
    importMs = newImportMs;
    importSeed = newImportSeed;
    nowMs = newNowMs;
    seed = newSeed;
    environmentText = newEnvironment;
    environmentRule = newRule;
    tablesText = newTables;
    snapshotText = newSnapshot;
    answersAhead = newAhead === true;
    argumentsText = newArguments ?? "null";
  },
  /** Whether another run may follow in this context: the modules are there, and the run has left nothing that would go on. */
  isReusable: () =>
    !ended && importing === 2 && (settled === 1 || settled === 2) && head === null && firstOperation === null && pendingImports === null && timerCount === 0,
  /**
   * Makes everything that belongs to one run as new; modules, globals and what the import phase observed stay. `begin` and `invoke` follow.
   * false: user code has replaced what that needs.
   */
  renew() {
    try {
      for (let i = 0; i < renewCallbacks.count; i++) renewCallbacks[i]();
    } catch {
      return false;
    }
    environment = null;
    tables = null;
    runGenerator = null;
    observedTime = observedRandom = observedSnapshot = ended = false;
    nestedFlags = 0;
    readNames = create(null);
    for (const name in importNames) readNames[name] = true;
    settled = 0;
    value = failureText = failureFrames = failureData = systemKind = "";
    // Ids of streams go on: one that user code has kept from an earlier run is unknown, not another's.
    streams = new NativeMap();
    unsent = lastUnsent = sent = dirty = null;
    inFlight = leftDocs = leftBytes = 0;
    documents = new NativeMap();
    knownCount = getsLeft = charactersLeft = otherReads = waitingGets = 0;
    writesLeft = MAX_WRITES_AHEAD;
    gotten = create(null);
    lines = lastLine = null;
    lineCount = 0;
    stopwatches = new NativeMap();
    endCallbacks.count = 0;
    return true;
  },
  /** The context is to serve runs that evaluate their modules anew (realm_check.js). Before any user code. */
  prepareRealm: takeSnapshot,
  /** Text of what the runs so far have changed in the realm, or "". */
  realmDifference,
  /** Before the next run of a context whose realm is unchanged. */
  restart() {
    restart();
    return this.renew();
  },
  setTables(text) {
    tablesText = text;
    tables = null;
  },
  addMap(script, table, sources) {
    apply(mapSet, maps, [script, { __proto__: null, table, sourcesText: sources, sources: null }]);
  },
  addFactory(factory) {
    factories[factoryCount++] = factory;
  },

  /** Evaluates modules through a program of modules.mjs. 2: done, 1: waits for a promise, 3: failed. */
  importModules(program) {
    contextSet(0);
    importing = 1;
    try {
      const promise = program(record, factories, nameDefault);
      if (promise === undefined) importing = 2;
      else finishImport(promise);
    } catch (error) {
      importing = 3;
      fail(error);
    }
    return importing;
  },
  importState: () => importing,

  invoke(path, exportName, displayName, argsText, requestId) {
    contextSet(0);
    phase = "run";
    startedMs = apply(dateNow, NativeDate, []);
    try {
      const read = record(path).find(exportName);
      if (read === undefined) {
        failPlainly(`Couldn't find ${quote(exportName)} in module ${quote(path)}.`);
        return;
      }
      const exported = read();
      if ((typeof exported !== "object" && typeof exported !== "function") || exported === null) {
        failPlainly(mismatch(displayName, create(null)));
        return;
      }
      const wrong = mismatch(displayName, exported);
      if (wrong !== null) {
        failPlainly(wrong);
        return;
      }
      const method = exported[`invoke${kindNames[kind]}`];
      settle(apply(method, global, kind === "action" ? [requestId, argsText] : [argsText]), displayName);
    } catch (error) {
      if (!ended) fail(error);
    }
  },

  /** `path` and `method` choose the handler; `requestText` is the JSON text that `runRequest` takes. No match: the value is `false`. */
  invokeHttp(module, method, path, requestText) {
    contextSet(0);
    phase = "run";
    startedMs = apply(dateNow, NativeDate, []);
    try {
      const read = record(module).find("default");
      const router = read === undefined ? undefined : read();
      if (router === undefined) {
        failPlainly(`Couldn't find default export in module ${quote(module)}.`);
        return;
      }
      if ((typeof router !== "object" && typeof router !== "function") || router === null || router.isRouter !== true) {
        failPlainly("The default export of `convex/http.js` is not a Router.");
        return;
      }
      const found = router.lookup(path, method);
      if (found === null || found === undefined) {
        value = "false";
        settled = 1;
        return;
      }
      httpRoute = `${NativeString(found[1])} ${NativeString(found[2])}`;
      settleHttp(router.runRequest(requestText, path));
    } catch (error) {
      if (!ended) fail(error);
    }
  },
  takeHttpRoute() {
    const text = httpRoute;
    httpRoute = "";
    return text;
  },
  takeHttpHead() {
    const text = httpHead;
    httpHead = "";
    return text;
  },

  // Outbox. The host asks for one thing at a time; an empty name means that there is no more.
  nextSyscall() {
    const node = unsent;
    if (node === null || ended) return "";
    if (isLive() && !node.notice && inFlight >= 8) return "";
    unsent = node.nextUnsent;
    node.nextUnsent = null;
    if (node.notice) node.taken = true;
    else inFlight++;
    sent = node;
    return node.op;
  },
  syscallArgs: () => sent.args,
  syscallSeq: () => sent.seq,
  /** Of a notice: id of its stream, or -2 for a write that has its answer. -1 for what is to be answered. */
  syscallStream: () => (sent.notice ? sent.stream : -1),
  /** JSON of rows and documents served without asking since the last report, or "". */
  consumed() {
    let text = "";
    while (dirty !== null) {
      const stream = dirty;
      dirty = stream.nextDirty;
      stream.nextDirty = null;
      text += `${text === "" ? "{" : ","}"${stream.id}":${stream.consumed}`;
      stream.consumed = 0;
    }
    const gets = reportGotten();
    if (gets !== "") text += text === "" ? `{${apply(slice, gets, [1])}` : gets;
    return text === "" ? "" : `${text}}`;
  },
  nextLine() {
    if (lines === null) return "";
    const { text } = lines;
    lines = lines.next;
    return text;
  },
  nextTimer() {
    if (newTimers === null) return 0;
    return newTimers.id;
  },
  timerWait() {
    const { wait } = newTimers;
    newTimers = newTimers.next;
    return wait;
  },
  nextOperation() {
    const taken = ended ? null : takeOperation();
    if (taken === null) return "";
    sent = taken;
    return sent.name;
  },
  operationId: () => sent.id,
  operationJson: () => sent.json,
  operationBuffers: () => sent.count,
  operationBuffer: (i) => sent.buffers[i],
  nextImport() {
    if (pendingImports === null || ended) return "";
    sent = pendingImports;
    pendingImports = sent.next;
    return sent.specifier;
  },
  importId: () => sent.id,
  importFrom: () => sent.from,

  // Inbox.
  answer(seq, text) {
    const node = apply(mapGet, nodes, [seq]);
    if (node === undefined || node.state !== 0) return;
    inFlight--;
    node.state = 1;
    node.text = text;
    if (answersAhead && node.op === GET) knowAnswer(node);
  },
  /** The answer of a get with which documents come, and how many gets and characters are left before a limit. Whether they may be added. */
  answerGet(seq, text, gets, characters) {
    const node = apply(mapGet, nodes, [seq]);
    if (node === undefined || node.state !== 0) return false;
    this.answer(seq, text);
    if (!answersAhead || node.otherReads !== otherReads) return false;
    getsLeft = gets;
    charactersLeft = characters;
    return node.epoch === epoch;
  },
  addDocument(id, table, text) {
    if (apply(mapGet, documents, [id]) === undefined) know(id, table, text, false);
  },
  answerPage(seq, text, rows, done, docs, bytes) {
    const node = apply(mapGet, nodes, [seq]);
    if (node === undefined || node.state !== 0) return;
    inFlight--;
    leftDocs = docs;
    leftBytes = bytes;
    takePage(node, text, rows, done);
  },
  answerError(seq, message, data) {
    const node = apply(mapGet, nodes, [seq]);
    if (node === undefined || node.state !== 0) return;
    inFlight--;
    if (answersAhead && node.op === GET) waitingGets--;
    if (node.stream !== null) {
      node.stream.pending--;
      node.stream.row = null;
      node.stream.done = false;
    }
    node.state = 2;
    node.error = message;
    node.data = data;
  },
  isDeliverable: () => !ended && (operationsReady() || isReady()),
  deliver() {
    contextSet(0);
    // One or the other: answers that happen to be here together must not be seen closer together than answers that are not.
    if (operationsReady()) deliverOperations();
    else if (isReady()) deliver();
  },
  makeBuffer(size) {
    return (incoming[incomingCount++] = new NativeArrayBuffer(size));
  },
  answerOperation(id, json, error, errorName) {
    let one = firstOperation;
    while (one !== null && one.id !== id) one = one.next;
    const buffers = [];
    for (let i = 0; i < incomingCount; i++) {
      defineProperty(buffers, i, { __proto__: null, value: incoming[i], writable: true, enumerable: true, configurable: true });
    }
    incoming = create(null);
    incomingCount = 0;
    if (one === null || one.state !== 0) return;
    if (one.name === "fetch") inFlight--;
    one.resultJson = json;
    one.resultBuffers = buffers;
    one.error = error;
    one.errorName = errorName;
    one.state = error === "" ? 1 : 2;
  },
  fireTimer(id) {
    const timer = apply(mapGet, timers, [id]);
    if (timer === undefined || ended) return;
    contextSet(timer.context);
    if (timer.repeat) {
      announceTimer(timer);
    } else {
      apply(mapDelete, timers, [id]);
      timerCount--;
    }
    try {
      apply(timer.callback, undefined, timer.parameters);
    } catch (error) {
      if (!ended && settled === 0) {
        ended = true;
        fail(error);
      }
    }
  },
  /** A dynamic import: evaluate `program`, then give the namespace of `path`. */
  finishImport(id, path, program) {
    const one = apply(mapGet, dynamicImports, [id]);
    if (one === undefined) return;
    apply(mapDelete, dynamicImports, [id]);
    importsInFlight--;
    contextSet(0);
    const resolve = async () => {
      try {
        await program(record, factories, nameDefault);
        one.resolve(record(path).namespace());
      } catch (error) {
        const kept = [settled, failureText, failureFrames, failureData];
        describe(error);
        const text = `${failureText}\n${failureFrames}${failureFrames === "" ? "" : "\n"}`;
        failureText = kept[1];
        failureFrames = kept[2];
        failureData = kept[3];
        one.reject(new NativeError(text));
      }
    };
    resolve();
  },
  failImport(id, message) {
    const one = apply(mapGet, dynamicImports, [id]);
    if (one === undefined) return;
    apply(mapDelete, dynamicImports, [id]);
    importsInFlight--;
    one.reject(new NativeError(message));
  },
  isEvaluated: (path) => {
    const found = apply(mapGet, modules, [path]);
    return found !== undefined && found.thunks !== null;
  },
  resetFactories() {
    factoryCount = 0;
  },

  // Outcome.
  /** 0 running, 1 value, 2 error, 3 ended by the system. */
  settled: () => settled,
  hasQueue: () => head !== null || operations > 0,
  isWaiting: () =>
    head !== null || operations > 0 || importsInFlight > 0 || (timerCount > 0 && settled === 0) ||
    (httpStream !== null && settled === 0), // a body that nobody closes ends with the time limit
  endCallbacks: runEndCallbacks,
  value: () => value,
  failure: () => failureText,
  frames: () => failureFrames,
  data: () => failureData,
  systemKind: () => systemKind,
  reject(reason) {
    if (ended || settled === 2) return;
    ended = true;
    fail(reason);
  },
  stop() {
    ended = true;
  },
  /** Names of operations that an action has not waited for, comma separated; "" if none. */
  unawaited() {
    let text = "";
    const add = (name) => {
      text += text === "" ? name : `,${name}`;
    };
    // Of one exchange only what the script may wait for.
    for (let one = firstOperation; one !== null; one = one.next) if (one.name === "fetch" || one.name === "fetch.read") add("fetch");
    for (let node = head; node !== null; node = node.next) {
      const from = apply(startsWith, node.op, ["1.0/actions/"]) ? 12 : apply(startsWith, node.op, ["1.0/"]) ? 4 : 0;
      add(apply(slice, node.op, [from]));
    }
    return text;
  },
  observed: () => nestedFlags | (observedTime ? 1 : 0) | (observedRandom ? 2 : 0) | (importedTime ? 4 : 0) | (importedRandom ? 8 : 0) | (observedSnapshot ? 16 : 0),
  /** What a nested run observed counts for this one. */
  observe(flags, names) {
    const list = parseJson(names);
    for (let i = 0; i < list.length; i++) readNames[list[i]] = true;
    nestedFlags |= flags;
  },
  /** JSON array of the names of environment variables read so far. */
  readNames() {
    let text = "";
    for (const name in readNames) text += `${text === "" ? "" : ","}${quote(name)}`;
    return `[${text}]`;
  },
  /** 32 bytes in hex for a nested call, drawn from this run's generator. */
  drawSeed() {
    runGenerator ??= makeGenerator(seed);
    let text = "";
    for (let i = 0; i < 8; i++) {
      const word = runGenerator.next32();
      for (let shift = 0; shift < 32; shift += 4) text += "0123456789abcdef"[(word >>> (shift ^ 4)) & 15];
    }
    return text;
  },
  /** For analyze.mjs: calls the program of analysis.js, made in this context. Text of JSON, or "" when it failed (see `settled`). */
  analyze(what, path, program) {
    phase = "import";
    try {
      const functionText = (callable) => apply(functionToString, callable, []);
      return program(record(path), { __proto__: null, parseJson, quote, functionText }, what, path);
    } catch (error) {
      fail(error);
      return "";
    }
  },
});
