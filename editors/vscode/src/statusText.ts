// State of the server, pause, latency -> text, explanation and severity of the status bar item. Pure.

import type { ServerStatus } from "./protocol.ts";

/** State of the server's process, and the server's last status: of one document, and of all others. */
export type ServerState =
  | { kind: "starting" }
  | { kind: "running"; status: ServerStatus; elsewhere: ServerStatus; warning: string | undefined }
  | { kind: "stopped"; message: string };

export interface Situation {
  server: ServerState;
  /** What is paused for the active document. */
  paused: "workspace" | "language" | undefined;
  languageId: string | undefined;
  /** The active document. */
  uri: string | undefined;
  /** Why this extension offers nothing in the active document. */
  silent: string | undefined;
  lastMs: number | undefined;
  medianMs: number | undefined;
}

export interface StatusText {
  text: string;
  tooltip: string;
  severity: "none" | "warning" | "error";
}

const ICONS = { slow: "$(watch)", busy: "$(sparkle)", ready: "$(sparkle)" } as const;

/** Returns what the status bar item shows. */
export function statusText(now: Situation): StatusText {
  const { server } = now;
  if (server.kind === "stopped") {
    return { text: "$(error) dgemma", tooltip: server.message, severity: "error" };
  }
  if (server.kind === "starting") {
    return { text: "$(loading~spin) dgemma", tooltip: "The server is starting.", severity: "none" };
  }
  if (now.paused === "workspace") {
    return { text: "$(debug-pause) dgemma", tooltip: "Paused here: dgemma.enabled is off.", severity: "none" };
  }
  if (now.paused === "language") {
    const tooltip = `Paused for the language ${now.languageId}: dgemma.pausedLanguages.`;
    return { text: "$(debug-pause) dgemma", tooltip, severity: "none" };
  }
  if (now.silent !== undefined) {
    return { text: "$(circle-slash) dgemma", tooltip: now.silent, severity: "none" };
  }
  const { warning } = server;
  const status = server.status.uri && server.status.uri !== now.uri ? server.elsewhere : server.status;
  const reason = status.reason && !status.message.includes(status.reason) ? status.reason : undefined;
  const elsewhere = status.host ? `Your text is sent to ${status.host}.` : undefined;
  const learnt = status.adapter ? `The adapter of ${status.adapter} takes part.` : undefined;
  const said = [status.message, reason, elsewhere, learnt, warning].filter(Boolean);
  switch (status.kind) {
    case "error":
      return { text: "$(error) dgemma", tooltip: joined(said, "The engine cannot be used."), severity: "error" };
    case "loading":
      return { text: `$(loading~spin) dgemma ${status.percent} %`, tooltip: joined(said, "The model is loading."), severity: "none" };
    case "inactive":
      return { text: "$(circle-slash) dgemma", tooltip: joined(said, "Nothing is offered here."), severity: "none" };
    case "slow":
    case "busy":
    case "ready": {
      const times = now.lastMs === undefined ? [] : [`Last suggestion ${ms(now.lastMs)}, median ${ms(now.medianMs)}.`];
      const shown = now.lastMs === undefined ? "" : ` ${ms(now.lastMs)}`;
      return {
        text: `${warning === undefined ? ICONS[status.kind] : "$(warning)"} dgemma${shown}`,
        tooltip: joined([...said, ...times], "Ready."),
        severity: warning === undefined ? "none" : "warning",
      };
    }
  }
}

function joined(parts: readonly (string | undefined)[], otherwise: string): string {
  return parts.length > 0 ? parts.join("\n\n") : otherwise;
}

function ms(value: number | undefined): string {
  return `${Math.round(value ?? 0)} ms`;
}
