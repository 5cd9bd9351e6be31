// Source maps as tables that the bridge can search without host calls: error.stack is read synchronously inside a context.
//
// A table is a string of UTF-16 code units, nine per mapped segment, in ascending order of generated position (all 0-based):
//   generated line (high, low), generated column (high, low), source index, source line (high, low), source column (high, low)
// A string costs nothing to hand into another context of the same process.
import { decodedMappings, TraceMap } from "@jridgewell/trace-mapping";

const SEGMENT = 9;

/**
 * @param {string} text JSON of a source map
 * @returns {{table: string, sources: string} | null} `sources` is JSON of an array; null when the text is no source map
 */
export function compileSourceMap(text) {
  let lines;
  let map;
  try {
    map = new TraceMap(text);
    lines = decodedMappings(map);
  } catch {
    return null; // a broken map is the same as none: frames of its module are dropped
  }
  let count = 0;
  for (const line of lines) for (const segment of line) if (segment.length >= 4) count++;
  const units = new Uint16Array(count * SEGMENT);
  let at = 0;
  for (let line = 0; line < lines.length; line++) {
    for (const segment of lines[line]) {
      if (segment.length < 4) continue;
      const [column, source, sourceLine, sourceColumn] = segment;
      units[at] = line >>> 16;
      units[at + 1] = line;
      units[at + 2] = column >>> 16;
      units[at + 3] = column;
      units[at + 4] = source;
      units[at + 5] = sourceLine >>> 16;
      units[at + 6] = sourceLine;
      units[at + 7] = sourceColumn >>> 16;
      units[at + 8] = sourceColumn;
      at += SEGMENT;
    }
  }
  const table = Buffer.from(units.buffer, 0, at * 2).ucs2Slice(0, at * 2);
  return { table, sources: JSON.stringify(map.sources.map((source) => source ?? "")) };
}

/**
 * The original position of a 0-based generated position: nearest segment at or before it.
 *
 * @returns {{source: string, line: number, column: number} | null} 0-based
 */
export function originalPosition({ table, sources }, line, column) {
  const at = (i) => table.charCodeAt(i);
  let low = 0;
  let high = table.length / SEGMENT;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const base = middle * SEGMENT;
    const segmentLine = at(base) * 65536 + at(base + 1);
    if (segmentLine < line || (segmentLine === line && at(base + 2) * 65536 + at(base + 3) <= column)) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return null;
  const base = (low - 1) * SEGMENT;
  return {
    source: JSON.parse(sources)[at(base + 4)],
    line: at(base + 5) * 65536 + at(base + 6),
    column: at(base + 7) * 65536 + at(base + 8),
  };
}
