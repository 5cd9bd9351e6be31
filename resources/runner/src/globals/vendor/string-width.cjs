// Stands in for object-inspect/stringWidth.js, which parses a table of widths when it is loaded: most runs never ask for one.
"use strict";

module.exports = (text) => require("package:object-inspect/stringWidth.js")(text);
