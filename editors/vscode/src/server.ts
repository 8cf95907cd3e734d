// The server's process and its client: found, started, watched, restarted; fires an event when the state changes.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { homedir } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import * as vscode from "vscode";
import { CloseAction, ErrorAction, LanguageClient, type Middleware, RevealOutputChannelOn, type StaticFeature } from "vscode-languageclient/node";
import { because, type Candidate, candidates, type Verdict, whyNone } from "./candidates.ts";
import { offerModel } from "./fetch.ts";
import { launch } from "./launch.ts";
import { probe } from "./probe.ts";
import { hintLearning } from "./learn.ts";
import { incompatibility, LEARN_HINT, type LearnHint, type MissingModel, MODEL_MISSING, type ServerStatus, STATUS } from "./protocol.ts";
import { setting, settingsAtStart } from "./settings.ts";
import type { ServerState } from "./statusText.ts";

const SELECTOR = ["file", "untitled", "vscode-notebook-cell"].map((scheme) => ({ scheme }));
const LAST_WORDS_MS = 1_000;
const MOST_CRASHES = 3;
const CRASH_WINDOW_MS = 180_000;
const READY: ServerStatus = { kind: "ready", message: "", percent: 100 };

/** Declares that this extension offers to fetch a missing model and to learn a repository. */
const OFFERS: StaticFeature = {
  fillClientCapabilities: (capabilities) => {
    const dgemma = { fetchModel: true, learnRepository: true };
    capabilities.experimental = { ...(capabilities.experimental as object | undefined), dgemma };
  },
  initialize: () => undefined,
  getState: () => ({ kind: "static" }),
  clear: () => undefined,
};

export interface Looked {
  candidate: Candidate;
  verdict: Verdict;
}

/** A client that writes its errors into the log: this extension shows those that concern the user, once. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** The server of this window. */
export class Server implements vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<void>();
  readonly #failed = new vscode.EventEmitter<string>();
  readonly #log: vscode.LogOutputChannel;
  readonly #home: string;
  readonly #middleware: Middleware;
  #state: ServerState = { kind: "starting" };
  #client: LanguageClient | undefined;
  #candidate: Candidate | undefined;
  #turn: Promise<void> = Promise.resolve();
  #crashes: number[] = [];

  /** Fires when `state` changes. */
  readonly onDidChange = this.#changed.event;
  /** Fires with a sentence when the server cannot be started or ends too often. */
  readonly onDidFail = this.#failed.event;

  /**
   * @param log where the server's messages go.
   * @param home folder of this extension, where the server is started.
   * @param middleware changes messages between the editor and the server.
   */
  constructor(log: vscode.LogOutputChannel, home: string, middleware: Middleware) {
    this.#log = log;
    this.#home = home;
    this.#middleware = middleware;
  }

  get state(): ServerState {
    return this.#state;
  }

  /** The client, while the server runs. */
  get client(): LanguageClient | undefined {
    return this.#state.kind === "running" ? this.#client : undefined;
  }

  /**
   * Returns the client for what goes beyond LSP, or the sentence that says why there is none.
   */
  get beyond(): LanguageClient | string {
    if (this.#state.kind !== "running" || this.#client === undefined) {
      return "the server does not run; see its item in the status bar.";
    }
    return this.#state.warning ?? this.#client;
  }

  /** The program that runs, with its arguments; undefined while none does. */
  get candidate(): Candidate | undefined {
    return this.#candidate;
  }

  /** Starts the server, or starts it again. One call runs after the other. */
  async restart(): Promise<void> {
    this.#crashes = [];
    await this.#afterwards(async () => {
      await this.#stop();
      await this.#start();
    });
  }

  async dispose(): Promise<void> {
    await this.#afterwards(() => this.#stop());
    this.#changed.dispose();
    this.#failed.dispose();
  }

  /**
   * Probes the ways to start the server.
   *
   * @param how `"first"` stops at the first that works; `"found"` probes all of them, without the settings.
   */
  async look(how: "first" | "found"): Promise<Looked[]> {
    const folders = vscode.workspace.workspaceFolders ?? [];
    const chosen = how === "first";
    const around = {
      serverPath: chosen ? setting("server.path", "") : "",
      serverPython: chosen ? setting("server.python", "") : "",
      trustedFolders: vscode.workspace.isTrusted ? folders.map((folder) => folder.uri.fsPath) : [],
      searchPath: process.env["PATH"] ?? "",
      home: homedir(),
      platform: process.platform,
    };
    const looked: Looked[] = [];
    for (const candidate of candidates(around)) {
      const verdict = await probe(candidate, this.#home);
      looked.push({ candidate, verdict });
      if (verdict.kind === "usable" && chosen) {
        break;
      }
    }
    return looked;
  }

  async #start(): Promise<void> {
    this.#become({ kind: "starting" });
    const looked = await this.look("first");
    for (const { candidate, verdict } of looked) {
      this.#log.info(`${candidate.command} ${because(verdict)}`);
    }
    const usable = looked.find(({ verdict }) => verdict.kind === "usable");
    if (usable === undefined) {
      this.#fail(whyNone(looked));
      return;
    }
    this.#candidate = usable.candidate;
    try {
      await this.#connect(usable.candidate);
    } catch (error) {
      this.#fail(`The server ended at start: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #connect(candidate: Candidate): Promise<void> {
    const child = await launch(candidate, this.#home);
    const lastWords = tail(child);
    const client = new QuietClient("dgemma", "dgemma", () => Promise.resolve(child), {
      documentSelector: SELECTOR,
      outputChannel: this.#log,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      initializationOptions: settingsAtStart,
      initializationFailedHandler: () => false,
      middleware: this.#middleware,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => {
          this.#closed(client);
          return { action: CloseAction.DoNotRestart, handled: true };
        },
      },
    });
    let status = READY;
    let elsewhere = READY;
    let warning: string | undefined;
    client.onNotification(STATUS, (said: ServerStatus) => {
      status = said;
      elsewhere = said.uri ? elsewhere : said;
      if (this.#client === client && this.#state.kind === "running") {
        this.#become({ kind: "running", status, elsewhere, warning });
      }
    });
    client.registerFeature(OFFERS);
    client.onNotification(MODEL_MISSING, (model: MissingModel) => void offerModel(client, model));
    client.onNotification(LEARN_HINT, (hint: LearnHint) => void hintLearning(hint));
    const ended = once(child, "exit").then(() => Promise.reject(new Error("it ended")));
    ended.catch(() => undefined); // once it has started, `#closed` handles its end
    try {
      await Promise.race([client.start(), ended]);
    } catch (error) {
      child.kill();
      const said = await Promise.race([lastWords, sleep(LAST_WORDS_MS)]);
      throw new Error(said ?? String(error), { cause: error });
    }
    const answer = client.initializeResult;
    warning = incompatibility(answer?.capabilities.experimental, answer?.serverInfo?.version);
    this.#client = client;
    this.#become({ kind: "running", status, elsewhere, warning });
  }

  #closed(client: LanguageClient): void {
    if (this.#client !== client) {
      return;
    }
    this.#client = undefined;
    const now = Date.now();
    this.#crashes = [...this.#crashes.filter((at) => now - at < CRASH_WINDOW_MS), now];
    if (this.#crashes.length > MOST_CRASHES) {
      this.#fail(`The server ended ${this.#crashes.length} times within three minutes.`);
    } else {
      void this.#afterwards(() => this.#start());
    }
  }

  async #stop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#candidate = undefined;
    await client?.dispose().catch((error: unknown) => this.#log.warn(`the server did not stop as it should: ${error}`));
  }

  #fail(message: string): void {
    this.#candidate = undefined;
    this.#log.error(message);
    this.#become({ kind: "stopped", message });
    this.#failed.fire(message);
  }

  #become(state: ServerState): void {
    this.#state = state;
    this.#changed.fire();
  }

  async #afterwards(work: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(work);
    await this.#turn;
  }
}

/** Returns the last line that a process writes to its standard error, once it has ended. */
async function tail(child: ChildProcess): Promise<string> {
  let last = "";
  if (child.stderr !== null) {
    for await (const line of createInterface(child.stderr)) {
      last = line.trim() || last;
    }
  }
  return last || `it printed nothing, exit code ${child.exitCode ?? child.signalCode}`;
}
