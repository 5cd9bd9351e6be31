// Stands in for a part of a package that a context does not need.
export {};
