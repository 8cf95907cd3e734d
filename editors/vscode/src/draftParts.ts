// A draft's spans -> the pieces of one line that a decoration can show, each with a confidence level. Pure.

import type { DraftSpan } from "./protocol.ts";

/** The model's confidence in a piece; every level has a colour. */
export const LEVELS = ["unsure", "likely", "sure", "settled"] as const;
export type Level = (typeof LEVELS)[number];

export interface DraftPart {
  text: string;
  level: Level;
}

// Confidences from which a level holds, as in editors/neovim/lua/dgemma/denoise.lua.
const SURE = 0.75;
const LIKELY = 0.4;
const MOST_CHARS = 300;

/** Returns the level of a span: `settled` where the sampler accepted it, else by confidence. */
export function levelOf(span: DraftSpan): Level {
  if (span.settled) {
    return "settled";
  }
  return span.confidence >= SURE ? "sure" : span.confidence >= LIKELY ? "likely" : "unsure";
}

/** Returns the pieces, neighbours of one level joined, line breaks as signs, cut at 300 characters. */
export function draftParts(spans: readonly DraftSpan[]): DraftPart[] {
  const parts: DraftPart[] = [];
  let left = MOST_CHARS;
  for (const span of spans) {
    const text = [...visible(span.text)].slice(0, left).join("");
    left -= [...text].length;
    const last = parts.at(-1);
    if (last?.level === levelOf(span)) {
      last.text += text;
    } else if (text) {
      parts.push({ text, level: levelOf(span) });
    }
  }
  return parts;
}

// A decoration is one line of HTML: breaks would vanish and runs of spaces shrink to one.
function visible(text: string): string {
  return text.replaceAll(/\r?\n/g, "⏎").replaceAll("\t", "    ").replaceAll(" ", "\u00a0");
}
