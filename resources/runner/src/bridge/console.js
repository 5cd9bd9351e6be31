// console: lines as JSON texts (runtime.md 7).

const MAX_LINES = 256;
const MAX_LINE_UNITS = 40000; // over the byte limit that Python applies (7.3), which needs the surplus to see that a line was cut
let lines = null;
let lastLine = null;
let lineCount = 0;
function pushLine(text) {
  const entry = { __proto__: null, text, next: null };
  if (lines === null) lines = entry;
  else lastLine.next = entry;
  lastLine = entry;
}
function writeLine(level, messages, count) {
  if (++lineCount > MAX_LINES + 1) return;
  let room = MAX_LINE_UNITS;
  let text = "";
  for (let i = 0; i < count && room > 0; i++) {
    const message = messages[i].length > room ? apply(slice, messages[i], [0, room]) : messages[i];
    room -= message.length + 1;
    text += i === 0 ? quote(message) : `,${quote(message)}`;
  }
  const at = isLive() && phase === "run" ? apply(dateNow, NativeDate, []) : phase === "run" ? nowMs : importMs < 0 ? 0 : importMs;
  pushLine(`{"messages":[${text}],"level":"${level}","timestamp":${at}}`);
}
function print(level, values, first) {
  const { inspect } = use("inspect");
  const messages = create(null);
  let count = 0;
  if (first !== undefined) messages[count++] = first;
  for (let i = 0; i < values.length; i++) messages[count++] = NativeString(inspect(values[i]));
  return [messages, count];
}
function say(level, values, first) {
  const printed = print(level, values, first);
  writeLine(level, printed[0], printed[1]);
}
let stopwatches = new NativeMap();
const elapsed = (label) => {
  const started = apply(mapGet, stopwatches, [label]);
  return started === undefined ? undefined : `${label}: ${clockForConsole() - started}ms`;
};
const clockForConsole = () => (phase === "run" ? (isLive() ? apply(dateNow, NativeDate, []) : nowMs) : 0);
const consoleObject = {
  debug(...values) {
    say("DEBUG", values);
  },
  error(...values) {
    say("ERROR", values);
  },
  info(...values) {
    say("INFO", values);
  },
  log(...values) {
    say("LOG", values);
  },
  warn(...values) {
    say("WARN", values);
  },
  trace(...values) {
    const printed = print("LOG", values);
    const holder = { __proto__: null };
    NativeError.captureStackTrace(holder, consoleObject.trace);
    const frames = guarded(() => holder.stack);
    printed[0][printed[1]] = `\n${typeof frames === "string" ? frames : ""}`;
    writeLine("LOG", printed[0], printed[1] + 1);
  },
  time(label = "default") {
    label = NativeString(label);
    if (apply(mapGet, stopwatches, [label]) !== undefined) writeLine("WARN", [`Timer '${label}' already exists`], 1);
    else apply(mapSet, stopwatches, [label, clockForConsole()]);
  },
  timeLog(label = "default", ...values) {
    label = NativeString(label);
    const text = elapsed(label);
    if (text === undefined) writeLine("WARN", [`Timer '${label}' does not exist`], 1);
    else say("INFO", values, text);
  },
  timeEnd(label = "default") {
    label = NativeString(label);
    const text = elapsed(label);
    if (text === undefined) writeLine("WARN", [`Timer '${label}' does not exist`], 1);
    else writeLine("INFO", [text], 1);
    apply(mapDelete, stopwatches, [label]);
  },
};
hidden(global, "console", consoleObject);
