// Loaded by `import()` only.
let count = 0;
count++;
export const answer = 42;
export const loads = () => count;
