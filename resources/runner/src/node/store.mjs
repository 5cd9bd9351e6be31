// Whose code is running: one AsyncLocalStorage for the whole process.
//
// Its value is {run, importing}: the run of an action, and whether its modules are being evaluated. Node keeps it for the handlers of
// unhandledRejection and uncaughtException too, so that what escapes a run is known to be that run's.
import { AsyncLocalStorage } from "node:async_hooks";

const storage = new AsyncLocalStorage();

/** Calls `work` with everything that it starts belonging to `run`. */
export function within(run, importing, work) {
  return storage.run({ run, importing }, work);
}

/** @returns {{run: object, importing: boolean} | undefined} */
export function current() {
  return storage.getStore();
}
