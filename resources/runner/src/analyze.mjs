export function analyze() {
  return { ok: false, error: { message: "" } };
}
