// The counts that the server keeps, as JSON of any shape -> a page for a person. Pure.

/** Returns a Markdown page with one row for each figure; a figure that is not known yet is a dash. */
export function statsPage(figures: unknown): string {
  const rows = [...figuresOf(figures, [])].map(([name, value]) => `| ${name} | ${value} |`);
  const table = rows.length > 0 ? ["| what | figure |", "| --- | --- |", ...rows] : ["Nothing was counted yet."];
  return ["# dgemma: what suggestions were worth", "", ...table, "", "Counts and times only; they stay on this machine.", ""].join("\n");
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
