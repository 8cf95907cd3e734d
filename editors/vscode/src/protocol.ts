// Messages between this extension and the server beyond LSP, and whether the two are compatible. Uses no VS Code API.

import type { InlineCompletionItem, Position, Range } from "vscode-languageclient";

/** The version of the protocol that this extension supports. */
export const PROTOCOL = 1;

/** The command that the server's code actions carry; this extension runs it itself. */
export const FILL_COMMAND = "dgemma.fill";

export const FILL = "dgemma/fill";
export const DENOISE = "dgemma/denoise";
export const DRAFT = "dgemma/draft";
export const STATUS = "dgemma/status";
export const STATS = "dgemma/stats";
export const MODEL_MISSING = "dgemma/modelMissing";
export const FETCH_MODEL = "dgemma/fetchModel";
export const DECLINE_MODEL = "dgemma/declineModel";
export const LEARN_HINT = "dgemma/learnHint";
export const LEARN_REPOSITORY = "dgemma/learnRepository";
export const FORGET_REPOSITORY = "dgemma/forgetRepository";

export interface VersionedDocument {
  uri: string;
  version: number;
}

export type FillKind = "selection" | "description" | "placeholder";

export interface FillQuestion {
  textDocument: VersionedDocument;
  range: Range;
  kind: FillKind;
}

export interface FillCandidate {
  newText: string;
  label: string;
  /** Probability of being right, 0 to 1. */
  score: number;
}

/** Candidates best first; none means that `message` says why. */
export interface FillAnswer extends VersionedDocument {
  range: Range;
  candidates: FillCandidate[];
  message: string;
}

export interface DenoiseQuestion {
  textDocument: VersionedDocument;
  position: Position;
  token: string;
}

export interface DraftSpan {
  text: string;
  /** 0 to 1. */
  confidence: number;
  /** Whether the sampler has accepted it. */
  settled: boolean;
}

/** The canvas after one step. */
export interface Draft {
  token: string;
  step: number;
  stepsLimit: number;
  elapsedMs: number;
  spans: DraftSpan[];
}

export interface DenoiseAnswer {
  items: InlineCompletionItem[];
  finish: string;
  steps: number;
  elapsedMs: number;
  /** Why nothing was asked; empty otherwise. */
  message: string;
}

/** The chosen model, which is not fetched yet. */
export interface MissingModel {
  name: string;
  title: string;
  /** Of the download. */
  numBytes: number;
  licence: string;
  /** That it is not fetched, and what to do. */
  message: string;
}

export interface FetchAnswer {
  /** The result, in one sentence. */
  message: string;
}

/** A repository that can be learnt. */
export interface LearnHint {
  /** Its path, and the uri of the same. */
  root: string;
  uri: string;
  /** Why it is worth learning. */
  message: string;
}

export interface LearnAnswer {
  /** Path of the repository. */
  root: string;
  /** The result, in one sentence. */
  message: string;
  /** Whether the adapter is better than none, and used from now on. */
  installed: boolean;
  /** Shares of held-out ends of lines that were filled exactly, 0 to 1; null where there were none. */
  before: number | null;
  after: number | null;
}

export interface ForgetAnswer {
  root: string;
  message: string;
}

/** The server's status: what the user can expect of the next request. */
export interface ServerStatus {
  kind: "ready" | "loading" | "busy" | "slow" | "inactive" | "error";
  message: string;
  /** Load progress, 0 to 100. */
  percent: number;
  /** Why it is slow or inactive, and what to do. */
  reason?: string;
  /** The one document that it is about; missing or empty where it holds everywhere. */
  uri?: string;
  /** Host and port of the engine on another machine that text is sent to; missing or empty for one of this machine. */
  host?: string;
  /** Path of the repository whose adapter took part in the last answer; missing or empty where none did. */
  adapter?: string;
}

/**
 * Returns why fill, preview and statistics cannot be used with a server, in one sentence; undefined where they can.
 *
 * @param experimental `capabilities.experimental` of the answer to `initialize`.
 * @param serverVersion the server's version.
 */
export function incompatibility(experimental: unknown, serverVersion: string | undefined): string | undefined {
  const protocol = protocolOf(experimental);
  if (protocol === PROTOCOL) {
    return undefined;
  }
  const server = `dgemma-lsp ${serverVersion ?? "(unknown version)"}`;
  if (protocol !== undefined && protocol > PROTOCOL) {
    return `${server} is newer than this extension: completions work, the rest needs the extension that belongs to it.`;
  }
  return `${server} is older than this extension: completions work, for the rest run "pip install --upgrade dgemma-lsp".`;
}

function protocolOf(experimental: unknown): number | undefined {
  if (typeof experimental !== "object" || experimental === null || !("dgemma" in experimental)) {
    return undefined;
  }
  const said = experimental.dgemma;
  if (typeof said !== "object" || said === null || !("protocol" in said)) {
    return undefined;
  }
  return typeof said.protocol === "number" ? said.protocol : undefined;
}
