// The server's counts, as JSON of any shape -> a page for a person. Pure.

/** Returns a page of plain text with one line for each figure; a dash stands for an unknown one. */
export function statsPage(figures: unknown): string {
  const rows = [...figuresOf(figures, [])];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  const body = rows.length > 0 ? lines : ["Nothing was counted yet."];
  return ["Statistics of suggestions", "", ...body, "", "Counts and times only; they stay on this machine.", ""].join("\n");
}

function* figuresOf(value: unknown, path: string[]): Generator<[string, string]> {
  if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      yield* figuresOf(inner, [...path, key.replaceAll("_", " ")]);
    }
  } else if (path.length > 0) {
    yield [path.join(", "), value === null || value === undefined ? "-" : String(value)];
  }
}
