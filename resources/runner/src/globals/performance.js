// performance and its entries (High Resolution Time, User Timing), on the run's clock (runtime.md 6.1).
import { notImplemented, platformClass, requireArguments, unimplementedGetters } from "./support/webidl.js";

const { EventTarget } = use("events");
const constructing = Symbol("constructing");
const floored = (milliseconds) => Math.floor(milliseconds * 10) / 10;

class PerformanceEntry {
  #name;
  #entryType;
  #startTime;
  #duration;

  constructor(key, name, entryType, startTime, duration) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
    this.#name = name;
    this.#entryType = entryType;
    this.#startTime = startTime;
    this.#duration = duration;
  }

  get name() {
    return this.#name;
  }

  get entryType() {
    return this.#entryType;
  }

  get startTime() {
    return this.#startTime;
  }

  get duration() {
    return this.#duration;
  }

  toJSON() {
    return { name: this.name, entryType: this.entryType, startTime: this.startTime, duration: this.duration };
  }
}

const cloned = (detail) => (detail === undefined || detail === null ? null : use("structured_clone").structuredClone(detail));

class PerformanceMark extends PerformanceEntry {
  #detail;

  constructor(name, options = undefined) {
    requireArguments(arguments.length, 1, "PerformanceMark");
    const startTime = options?.startTime === undefined ? bridge.performanceNow() : Number(options.startTime);
    if (!(startTime >= 0)) throw new TypeError("PerformanceMark: the start time is negative or not a number.");
    super(constructing, String(name), "mark", startTime, 0);
    this.#detail = cloned(options?.detail);
  }

  get detail() {
    return this.#detail;
  }

  toJSON() {
    return { ...super.toJSON(), detail: this.#detail };
  }
}

class PerformanceMeasure extends PerformanceEntry {
  #detail;

  constructor(key, name, startTime, endTime, detail) {
    super(key, name, "measure", startTime, endTime - startTime);
    this.#detail = detail;
  }

  get detail() {
    return this.#detail;
  }

  toJSON() {
    return { ...super.toJSON(), detail: this.#detail };
  }
}

let timeline = [];
let importTimeline = []; // its entries at the end of the import phase: what every run of this context starts with
function addEntry(entry) {
  timeline.push(entry);
  if (bridge.phase === "import") importTimeline.push(entry);
}
function keepEntries(wanted) {
  timeline = timeline.filter(wanted);
  if (bridge.phase === "import") importTimeline = timeline.slice();
}
bridge.onRenew(() => {
  timeline = importTimeline.slice();
});
const byStart = (entries) => entries.slice().sort((a, b) => a.startTime - b.startTime);

function syntaxError(message) {
  const { DOMException } = use("dom_exception");
  return new DOMException(message, "SyntaxError");
}

/** The time that a mark name or a number stands for. */
function timeOf(mark) {
  if (typeof mark === "number") {
    if (!(mark >= 0)) throw new TypeError("Performance.measure: a time is negative or not a number.");
    return mark;
  }
  const name = String(mark);
  const found = timeline.findLast((one) => one.entryType === "mark" && one.name === name);
  if (found === undefined) throw syntaxError(`Cannot find mark: "${name}".`);
  return found.startTime;
}

function measureBounds(startOrOptions, endMark) {
  if (typeof startOrOptions !== "object" || startOrOptions === null) {
    return {
      start: startOrOptions === undefined ? 0 : timeOf(startOrOptions),
      end: endMark === undefined ? bridge.performanceNow() : timeOf(endMark),
      detail: null,
    };
  }
  const { start, end, duration, detail } = startOrOptions;
  if (start === undefined && end === undefined && duration === undefined && detail === undefined) {
    return { start: 0, end: endMark === undefined ? bridge.performanceNow() : timeOf(endMark), detail: null };
  }
  if (endMark !== undefined) throw new TypeError("Performance.measure: options and an end mark exclude each other.");
  if (start === undefined && end === undefined) throw new TypeError("Performance.measure: start or end is required.");
  if (start !== undefined && end !== undefined && duration !== undefined) {
    throw new TypeError("Performance.measure: start, end and duration exclude each other.");
  }
  const length = duration === undefined ? undefined : Number(duration);
  let stop;
  if (end !== undefined) stop = timeOf(end);
  else if (length !== undefined && start !== undefined) stop = timeOf(start) + length;
  else stop = bridge.performanceNow();
  let begin;
  if (start !== undefined) begin = timeOf(start);
  else begin = length === undefined ? 0 : stop - length;
  return { start: begin, end: stop, detail: cloned(detail) };
}

class Performance extends EventTarget {
  constructor(key = undefined) {
    if (key !== constructing) throw new TypeError("Illegal constructor");
    super();
  }

  get timeOrigin() {
    return floored(bridge.timeOrigin());
  }

  now() {
    return bridge.performanceNow();
  }

  mark(name, options = undefined) {
    requireArguments(arguments.length, 1, "Performance.mark");
    const entry = new PerformanceMark(name, options);
    addEntry(entry);
    return entry;
  }

  measure(name, startOrOptions = undefined, endMark = undefined) {
    requireArguments(arguments.length, 1, "Performance.measure");
    const { start, end, detail } = measureBounds(startOrOptions, endMark);
    const entry = new PerformanceMeasure(constructing, String(name), start, end, detail);
    addEntry(entry);
    return entry;
  }

  clearMarks(name = undefined) {
    keepEntries((one) => one.entryType !== "mark" || (name !== undefined && one.name !== String(name)));
  }

  clearMeasures(name = undefined) {
    keepEntries((one) => one.entryType !== "measure" || (name !== undefined && one.name !== String(name)));
  }

  getEntries() {
    return byStart(timeline);
  }

  getEntriesByType(type) {
    requireArguments(arguments.length, 1, "Performance.getEntriesByType");
    return byStart(timeline.filter((one) => one.entryType === String(type)));
  }

  getEntriesByName(name, type = undefined) {
    requireArguments(arguments.length, 1, "Performance.getEntriesByName");
    return byStart(
      timeline.filter((one) => one.name === String(name) && (type === undefined || one.entryType === String(type))),
    );
  }

  clearResourceTimings() {
    notImplemented("clearResourceTimings", "Performance");
  }

  setResourceTimingBufferSize() {
    notImplemented("setResourceTimingBufferSize", "Performance");
  }

  toJSON() {
    return { timeOrigin: this.timeOrigin };
  }
}

platformClass(PerformanceEntry, "PerformanceEntry");
platformClass(PerformanceMark, "PerformanceMark");
platformClass(PerformanceMeasure, "PerformanceMeasure");
platformClass(Performance, "Performance");
unimplementedGetters(Performance, "Performance", ["eventCounts", "timing", "navigation"]);

/** The only instance. */
const performance = new Performance(constructing);

export { Performance, PerformanceEntry, PerformanceMark, PerformanceMeasure, performance };
