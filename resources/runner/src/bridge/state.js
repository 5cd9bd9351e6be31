// What the run is and how it stands.

let kind = "query";
let phase = "import";
let where = "at import time"; // what texts of refused things end with while phase is "import"
let environment = null; // lazily parsed from environmentText
let environmentText = "{}";
let environmentRule = "run"; // "run" | "auth" | "refuse"
let importMs = 0;
let importSeed = "";
let nowMs = 0;
let seed = "";
let startedMs = 0;
let observedTime = false;
let observedRandom = false;
let observedSnapshot = false;
let snapshotText = "null"; // JSON text of the timestamp of the snapshot that the run reads
let argumentsText = "null"; // JSON text of the component's arguments; null in the app
let importedTime = false;
let importedRandom = false;
let nestedFlags = 0; // what nested runs observed, as bits of observed()
let readNames = create(null); // environment variables read, and `table:NAME` for tables whose number was looked up
let importNames = create(null); // those of readNames that were read in the import phase
let ended = false; // fatal: nothing that user code still does counts
let settled = 0; // 0 running, 1 value, 2 error, 3 system error
let value = "";
let failureText = "";
let failureFrames = "";
let failureData = "";
let systemKind = "";
let tables = null;
let tablesText = "{}";

const isLive = () => kind === "action" || kind === "httpAction";
