// The times of the last answers -> the figures in the status bar. Pure.

const KEPT = 20;

/** Stores how long the last suggestions took. */
export class Latency {
  readonly #times: number[] = [];

  add(ms: number): void {
    this.#times.push(ms);
    if (this.#times.length > KEPT) {
      this.#times.shift();
    }
  }

  clear(): void {
    this.#times.length = 0;
  }

  /** Milliseconds of the last suggestion; undefined before the first. */
  get last(): number | undefined {
    return this.#times.at(-1);
  }

  /** The median of the last twenty in milliseconds; undefined before the first. */
  get median(): number | undefined {
    const ordered = this.#times.toSorted((a, b) => a - b);
    return ordered[Math.floor(ordered.length / 2)];
  }
}
