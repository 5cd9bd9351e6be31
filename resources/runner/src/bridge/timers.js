// setTimeout and its family.

const timers = new NativeMap();
let timerCount = 0;
let nextTimer = 1;
let newTimers = null;
let lastNewTimer = null;

function addTimer(what, callback, delay, parameters, repeat) {
  const id = nextTimer++;
  const refused = refusal(what);
  if (refused !== null) {
    apply(promiseReject, NativePromise, [refused]); // nobody can handle it: it ends the run (runtime.md 6.1)
    return id;
  }
  let wait = NativeNumber(delay);
  if (!(wait >= 1)) wait = repeat ? 1 : 0;
  if (wait > 2147483647) wait = 1;
  const timer = { __proto__: null, id, callback, parameters, repeat, wait, context: contextGet(), next: null };
  apply(mapSet, timers, [id, timer]);
  timerCount++;
  announceTimer(timer);
  return id;
}
function announceTimer(timer) {
  const entry = { __proto__: null, id: timer.id, wait: timer.wait, next: null };
  if (newTimers === null) newTimers = entry;
  else lastNewTimer.next = entry;
  lastNewTimer = entry;
}
function clearTimer(id) {
  if (apply(mapDelete, timers, [NativeNumber(id)])) timerCount--;
}
const scheduler = (what, repeat) => (callback, delay, parameters) => {
  if (typeof callback !== "function") {
    return fatal(`Not implemented: string code for ${what}. Consider calling an action defined in Node.js instead (https://docs.convex.dev/functions/actions).`);
  }
  return addTimer(what, callback, delay, parameters, repeat);
};
const startTimeout = scheduler("setTimeout", false);
const startInterval = scheduler("setInterval", true);
hidden(global, "setTimeout", function setTimeout(callback, delay = 0, ...parameters) {
  return startTimeout(callback, delay, parameters);
});
hidden(global, "setInterval", function setInterval(callback, delay = 0, ...parameters) {
  return startInterval(callback, delay, parameters);
});
hidden(global, "clearTimeout", function clearTimeout(id) {
  clearTimer(id);
});
hidden(global, "clearInterval", function clearInterval(id) {
  clearTimer(id);
});
