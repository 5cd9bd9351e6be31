// Gets and writes of a mutation that are answered here, because the document is known: this run has read it, or Python has sent it along with
// the answer to another get. Python hears of all of them, in order, and has the last word: a write that it refuses makes it run the mutation
// again without this (docs/internals.md section 8).

let answersAhead = false; // START allows it
let documents = new NativeMap(); // id -> what is known of the document
let knownCount = 0;
let getsLeft = 0; // gets, and characters of documents, before a limit could be met: Python's limit errors must arrive at the right get
let charactersLeft = 0;
let otherReads = 0; // counts what may have read besides gets
let waitingGets = 0; // gets that Python has not answered
let gotten = create(null); // id -> gets answered here since the last report

const MAX_KNOWN = 256;
const MAX_CHARACTERS = 16384;
const MAX_WRITES_AHEAD = 256; // of one run: what Python has not heard of yet is bounded by it
let writesLeft = MAX_WRITES_AHEAD;
const INSERT = "1.0/insert";
const writeOps = { __proto__: null, "1.0/shallowMerge": true, "1.0/replace": true, "1.0/remove": true };

function forgetDocuments() {
  if (knownCount > 0) {
    documents = new NativeMap();
    knownCount = 0;
  }
  getsLeft = 0;
}

/** `table`: its name, null if unknown; `text`: its JSON, "null" for none; `read`: whether the run has read it. */
function know(id, table, text, read) {
  if (knownCount >= MAX_KNOWN || text.length > MAX_CHARACTERS) {
    apply(mapDelete, documents, [id]);
    return;
  }
  knownCount++; // of entries made: one that replaces another counts again
  apply(mapSet, documents, [id, { __proto__: null, table, text, read, write: null }]);
}

const ownText = (object, name) => (apply(hasOwnProperty, object, [name]) && typeof object[name] === "string" ? object[name] : undefined);

/** The known document that an operation names. A missing or null `table` is no table; anything odd is Python's to judge. */
function named(asked) {
  if (typeof asked !== "object" || asked === null) return undefined;
  const id = ownText(asked, "id");
  const held = id === undefined ? undefined : apply(mapGet, documents, [id]);
  if (held === undefined) return undefined;
  const table = asked.table ?? null;
  return table === null || table === held.table ? held : undefined;
}

/** Python has answered a get. */
function knowAnswer(node) {
  waitingGets--;
  getsLeft--;
  charactersLeft -= node.text.length;
  if (node.epoch !== epoch) return; // what was written since may be this document
  const asked = parseJson(node.args);
  if (asked.isSystem === true) return;
  know(asked.id, ownText(asked, "table") ?? null, node.text, true);
}

/** Answers the operation of a node just queued, if that can be done here. Whether it was. */
function answerHere(node) {
  const { op } = node;
  if (op === GET) {
    if (knownCount > 0 && getHere(node)) return true;
    waitingGets++;
    return false;
  }
  if (writeOps[op] === true) return knownCount > 0 && writeHere(node);
  if (op !== INSERT) {
    // It may read, so what is left is not known any more; functions that are called may write.
    otherReads++;
    if (op === "1.0/runUdf") forgetDocuments();
    getsLeft = 0;
  }
  return false;
}

function getHere(node) {
  // Gets that Python has yet to answer come before this one.
  if (getsLeft <= 0 || charactersLeft <= 0 || waitingGets > 0) return false;
  const asked = guarded(() => parseJson(node.args));
  const held = named(asked);
  if (held === undefined || asked.isSystem === true) return false;
  // The report of what was read here would overtake the write.
  if (held.write !== null && !held.write.taken) return false;
  getsLeft--;
  charactersLeft -= held.text.length;
  held.read = true;
  gotten[asked.id] = (gotten[asked.id] ?? 0) + 1;
  node.state = 1;
  node.text = held.text;
  return true;
}

function writeHere(node) {
  const asked = guarded(() => parseJson(node.args));
  const held = named(asked);
  const text = held === undefined || !held.read || held.text === "null" || writesLeft <= 0 ? null : afterWrite(node, asked, held.text);
  if (text === null) {
    const id = typeof asked === "object" && asked !== null ? ownText(asked, "id") : undefined;
    if (id !== undefined) apply(mapDelete, documents, [id]);
    return false;
  }
  writesLeft--;
  node.state = 1;
  node.text = node.op === "1.0/remove" ? held.text : text;
  held.text = text;
  held.write = notice(node.op, node.args, -2);
  toNotify(held.write);
  return true;
}

/** The document's text after a write, or null when that is not easily told. Names inside of fields stand as they were given: npm sorts them. */
function afterWrite(node, asked, old) {
  if (node.op === "1.0/remove") return "null";
  if (node.args.length > MAX_CHARACTERS) return null;
  const members = membersOf(node.args);
  const fields = members === null || members.value === undefined ? null : membersOf(members.value);
  const before = fields === null ? null : membersOf(old);
  if (before === null) return null;
  if (node.op === "1.0/replace") {
    fields._id ??= before._id;
    fields._creationTime ??= before._creationTime;
    return printMembers(fields, null);
  }
  return printMembers(before, fields);
}

/** The members of an object's JSON text as raw texts by name, in order; null for what is no object or has white space between its tokens. */
function membersOf(text) {
  if (text[0] !== "{") return null;
  const members = create(null);
  let at = 1;
  if (text[1] === "}") return text.length === 2 ? members : null;
  for (;;) {
    if (text[at] !== '"') return null;
    const nameEnd = endOfString(text, at);
    const name = parseJson(apply(slice, text, [at, nameEnd]));
    if (text[nameEnd] !== ":") return null;
    const start = nameEnd + 1;
    at = start;
    let depth = 0;
    for (; ; at++) {
      const character = text[at];
      if (character === '"') at = endOfString(text, at) - 1;
      else if (character === "{" || character === "[") depth++;
      else if (character === " " || character === "\n" || character === "\t" || character === "\r") return null;
      else if (depth > 0) {
        if (character === "}" || character === "]") depth--;
      } else if (character === "," || character === "}") break;
    }
    members[name] = apply(slice, text, [start, at]);
    if (text[at] === "}") return at === text.length - 1 ? members : null;
    at++;
  }
}

/** Index behind the string that begins at `start`. */
function endOfString(text, start) {
  for (let at = start; ; ) {
    at = apply(indexOf, text, ['"', at + 1]);
    let back = at - 1;
    while (text[back] === "\\") back--;
    if ((at - back) % 2 === 1) return at + 1;
  }
}

/** JSON of `members` with `changes` over them, sorted by name; a change to `{"$undefined":null}` takes a field away, but not a system field. */
function printMembers(members, changes) {
  if (changes !== null) {
    for (const name in changes) {
      if (changes[name] !== '{"$undefined":null}') members[name] = changes[name];
      else if (name !== "_id" && name !== "_creationTime") delete members[name];
    }
  }
  // A list in order of names: few documents have many fields, and they mostly come sorted.
  let last = null; // greatest name first
  for (const name in members) {
    const item = { __proto__: null, name, previous: null };
    if (last === null || last.name < name) {
      item.previous = last;
      last = item;
      continue;
    }
    let after = last;
    while (after.previous !== null && after.previous.name > name) after = after.previous;
    item.previous = after.previous;
    after.previous = item;
  }
  let text = "}";
  for (let item = last; item !== null; item = item.previous) {
    text = `${item.previous === null ? "{" : ","}${quote(item.name)}:${members[item.name]}${text}`;
  }
  return last === null ? "{}" : text;
}

/** JSON members of the report of what was read here, each with a comma before it. */
function reportGotten() {
  let text = "";
  for (const id in gotten) text += `,${quote(id)}:${gotten[id]}`;
  if (text !== "") gotten = create(null);
  return text;
}
