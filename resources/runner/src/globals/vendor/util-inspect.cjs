// Stands in for object-inspect/util.inspect.js, which is Node's util.inspect: lets our own classes say how console lines show them.
"use strict";

const inspect = (value) => value[inspect.custom]();
inspect.custom = Symbol.for("convex.inspect");

module.exports = inspect;
