// What queries, mutations and the import phase may not do; errors that end a run whatever user code catches.

const refusalInFunctions = (what) =>
  new NativeError(`Can't use ${what} in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details.`);
function refusal(what) {
  if (phase === "import") {
    if (what === "cryptographic randomness") return new NativeError(`Cannot use ${what} ${where}`);
    return new NativeError(`${what} unsupported ${where}`);
  }
  return isLive() ? null : refusalInFunctions(what);
}

/** Ends the run with `error`, whatever user code does with the exception that this throws. */
function fatal(message) {
  const error = new NativeError(message);
  if (!ended) {
    ended = true;
    fail(error);
  }
  throw error;
}
