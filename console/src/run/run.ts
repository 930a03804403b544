// One run as this page follows it. It lives outside of the components: a run goes on, and is heard, whatever the page shows meanwhile.

import { parseExact } from "../schema/exact";
import { isObject } from "../schema/shape";
import type { Definitions, Json } from "../schema/resolve";
import { masked, encode, type Payload } from "../schema/draft";
import { ask, Trouble, type FieldProblem, type Problem } from "../server/api";
import { follow } from "../server/events";
import { textField, type Fn } from "../server/functions";
import { lineOf, previewIn, type Preview } from "./preview";

export interface OutFile {
  ref: string;
  url: string;
  mime_type?: string;
  size_bytes?: number;
}

export interface ModelProgress {
  model_id: string;
  phase: string;
  bytes_done?: number;
  bytes_total?: number;
  rate_bytes_s?: number;
  eta_s?: number | null;
}

export interface Timings {
  queued_ms?: number;
  model_ms?: number;
  inference_ms?: number;
  upload_ms?: number;
  total_ms?: number;
}

/** What a run that is over has used, over all attempts. */
export interface Receipt {
  gpu_seconds: number;
  cpu_seconds: number;
  cold_seconds: number;
  downloaded_bytes: number;
  loaded_bytes: number;
  attempts: number;
  cost: number | null;
}

/** The run object of both servers, as far as this page reads it. */
/** What went through a realtime session. */
export interface SessionFacts {
  reason: string;
  frames_in: number;
  frames_out: number;
  bytes_in: number;
  bytes_out: number;
}

export interface RunObject {
  id: string;
  status: string;
  function: string;
  owner?: string;
  endpoint?: string;
  tag?: string;
  release_id?: string;
  attempt?: number;
  worker_id?: string | null;
  input?: Json;
  output?: Json;
  files?: OutFile[] | null;
  error?: Problem | null;
  warnings?: FieldProblem[] | null;
  timings?: Timings | null;
  receipt?: Receipt | null;
  progress?: Json;
  models?: Json;
  routing?: Json;
  stuck?: Json;
  session?: SessionFacts | null;
  parent_id?: string | null;
  created_at: string;
  started_at?: string | null;
  finished_at?: string | null;
}

export interface RunView {
  number: number;
  fn: string;
  path: string;
  runId: string;
  /** What the run was asked for, secrets hidden, for people and for `rerun`. */
  input: Json;
  fileNames: string[];
  hadSecrets: boolean;
  /** The field of an output that is a piece of text, where a stream gives text. */
  field: string | null;
  status: string;
  stage: string;
  progress: number | null;
  etaS: number | null;
  models: ModelProgress[];
  /** What it has drawn so far, until the result is there. */
  preview: Preview | null;
  /** Text of a stream that gives text piece by piece. */
  text: string;
  items: Json[];
  /** How many there were of each, of which the newest are kept. */
  itemCount: number;
  logCount: number;
  logs: { level: string; message: string }[];
  events: string[];
  output: Json | undefined;
  files: OutFile[];
  warnings: FieldProblem[];
  problem: Problem | null;
  timings: Timings | null;
  beganMs: number;
  endedMs: number | null;
}

const MAX_ITEMS = 2000;
const MAX_LINES = 1000;
const MAX_PREVIEWS = 4;
const REDRAW_MS = 40;
let lastNumber = 0;

export function isOver(view: RunView): boolean {
  return view.endedMs !== null;
}

export class Run {
  view: RunView;
  private readonly listeners = new Set<() => void>();
  private readonly stop = new AbortController();
  private timer = 0;
  private firstProgress: { atMs: number; value: number } | null = null;

  private constructor(
    view: Omit<RunView, "number">,
    private readonly payload: Payload,
    /** The field of an output that is a piece of text. */
    field: string | null,
    /** Whether the payload is all there: without secrets and files it cannot be sent again. */
    private readonly isWhole: boolean,
  ) {
    this.view = { ...view, field: field ?? view.field, number: ++lastNumber };
  }

  /** A run that is over, as it was kept. */
  static restored(view: RunView): Run {
    return new Run(view, { value: view.input, files: [], complaints: [] }, null, !view.hadSecrets && view.fileNames.length === 0);
  }

  static of(fn: Fn, payload: Payload, secrets: string[], definitions: Definitions): Run {
    return new Run(Run.fresh(fn.id, fn.path, payload, secrets), payload, fn.streams ? textField(fn.output, definitions) : null, true);
  }

  /** Whether what it was asked for is all there, so that it can be asked again. */
  get canRunAgain(): boolean {
    return this.isWhole;
  }

  /** Another run of the same. */
  again(): Run {
    const { fn, path, input, fileNames, hadSecrets } = this.view;
    return new Run({ ...Run.fresh(fn, path, this.payload, []), input, fileNames, hadSecrets }, this.payload, this.view.field, true);
  }

  private static fresh(fn: string, path: string, payload: Payload, secrets: string[]): Omit<RunView, "number"> {
    return {
      fn,
      path,
      hadSecrets: secrets.length > 0,
      field: null,
      runId: "",
      input: parseExact(encode(masked(payload.value, secrets))) as Json,
      fileNames: payload.files.map((each) => `${each.name}: ${each.file.name}`),
      status: "sending",
      stage: "",
      progress: null,
      etaS: null,
      models: [],
      preview: null,
      text: "",
      items: [],
      itemCount: 0,
      logCount: 0,
      logs: [],
      events: [],
      output: undefined,
      files: [],
      warnings: [],
      problem: null,
      timings: null,
      beganMs: Date.now(),
      endedMs: null,
    };
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  snapshot = (): RunView => this.view;

  async begin(): Promise<void> {
    try {
      const onRun = (runId: string) => this.set({ runId, status: "queued" });
      const onLost = (isLost: boolean) => this.set({ stage: isLost ? "connection lost; trying again" : "" });
      const events = follow(this.view.path, requestOf(this.payload), onRun, onLost, this.stop.signal, this.query);
      for await (const event of events) this.take(event.name, event.data);
      if (!isOver(this.view)) await this.look();
    } catch (error) {
      if (this.stop.signal.aborted) this.end({ status: "canceled" });
      else if (error instanceof Trouble) this.end({ status: "failed", problem: error.problem });
      else throw error;
    }
  }

  async cancel(): Promise<void> {
    if (!this.view.runId) return this.stop.abort();
    this.set({ stage: "canceling" });
    try {
      await ask(`/v1/runs/${this.view.runId}/cancel`, { method: "POST" });
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      this.set({ stage: `not canceled: ${error.message}` });
    }
  }

  private get query(): string {
    return this.view.path.startsWith("/v1/run/") ? "?events=all" : "";
  }

  private async look(): Promise<void> {
    this.finish((await (await ask(`/v1/runs/${this.view.runId}`)).json()) as RunObject);
  }

  private take(name: string, data: unknown): void {
    if (name !== "output" && name !== "done") this.note(lineOf(name, data));
    const found = isObject(data) ? data : {};
    switch (name) {
      case "progress":
        return this.progressed(found);
      case "log":
        return this.set({ logCount: this.view.logCount + 1, logs: [...this.view.logs, { level: String(found.level ?? "info"), message: String(found.message ?? "") }].slice(-MAX_LINES) });
      case "output":
        return this.gave(data as Json);
      case "status":
        return this.stepped(found);
      case "custom": {
        const preview = previewIn(found);
        return this.set(preview ? { status: "running", preview } : { status: "running" });
      }
      case "restart":
        return this.set({ preview: null, text: "", items: [], itemCount: 0, progress: null, etaS: null, stage: `attempt ${String(found.attempt)}` });
      case "error":
        return this.set({ problem: { ...this.view.problem, ...(found as Problem) } });
      case "done":
        return this.finish(data as RunObject);
    }
  }

  private note(line: string): void {
    this.view.events.push(line);
    if (this.view.events.length > MAX_LINES) this.view.events.shift();
  }

  private progressed(found: { [key: string]: Json }): void {
    const value = typeof found.progress === "number" ? Math.min(1, Math.max(0, found.progress)) : null;
    const now = Date.now();
    let etaS: number | null = null;
    if (value !== null) {
      if (!this.firstProgress || value < this.firstProgress.value) this.firstProgress = { atMs: now, value };
      const done = value - this.firstProgress.value;
      if (done > 0) etaS = ((now - this.firstProgress.atMs) / 1000 / done) * (1 - value);
    }
    this.set({ status: "running", progress: value, etaS, stage: typeof found.stage === "string" ? found.stage : this.view.stage });
  }

  private gave(item: Json): void {
    const piece = typeof item === "string" ? item : this.view.field && isObject(item) ? item[this.view.field] : undefined;
    if (typeof piece === "string") this.view.text += piece;
    this.view.items.push(item);
    this.view.itemCount++;
    const shown = assetsIn(item).map((each) => ({ ...each, url: `/v1/files/${each.ref.split("/").map(encodeURIComponent).join("/")}` }));
    // Pictures of a stream as they come, such as previews; where files may be read before the end of their run.
    if (shown.length && this.query) this.view.files = [...this.view.files.filter((each) => !shown.some((other) => other.ref === each.ref)), ...shown].slice(-MAX_PREVIEWS);
    if (this.view.items.length > MAX_ITEMS) this.view.items.shift();
    this.set({ status: "running" });
  }

  /** Steps of the worker's own: what it fetches and loads, and that it began. On the platform a status may be the run's state alone. */
  private stepped(found: { [key: string]: Json }): void {
    if (typeof found.status === "string") return this.set({ status: found.status });
    const type = String(found.event_type ?? found.type ?? "");
    const step = (isObject(found.payload) ? found.payload : found) as { [key: string]: Json };
    const model = String(step.model_key ?? step.model_id ?? step.param_name ?? "the model");
    if (typeof step.phase === "string" && typeof step.model_id === "string") {
      const progress = step as unknown as ModelProgress;
      const others = this.view.models.filter((each) => each.model_id !== progress.model_id);
      return this.set({ status: "running", models: [...others, progress], stage: progress.phase === "ready" ? "" : `${progress.phase} ${progress.model_id}` });
    }
    const words: Record<string, string> = {
      "task.received": "received",
      "task.started": "started",
      "task.model_resolve.started": `finding ${model}`,
      "task.model_load.started": `loading ${model}`,
      "task.model_load.completed": "",
      "task.inference.started": "running",
      "task.inference.stuck": "takes longer than expected",
      "task.model_load.stuck": `loading ${model} takes longer than expected`,
      "task.model_resolve.stuck": `finding ${model} takes longer than expected`,
    };
    const stage = words[type];
    if (stage !== undefined) this.set({ status: "running", stage });
    if (type === "task.warning" && Array.isArray(step.warnings)) this.set({ warnings: step.warnings as unknown as FieldProblem[] });
  }

  private finish(run: RunObject): void {
    const failed = run.status !== "succeeded";
    const problem = failed ? (run.error ?? this.view.problem ?? { title: run.status }) : null;
    this.end({
      status: run.status,
      output: run.output ?? undefined,
      files: run.files ?? [],
      warnings: run.warnings ?? this.view.warnings,
      timings: run.timings ?? null,
      problem: run.status === "canceled" ? null : problem,
    });
  }

  private end(last: Partial<RunView>): void {
    this.set({ stage: "", etaS: null, models: [], preview: null, ...last, endedMs: Date.now() });
  }

  private set(change: Partial<RunView>): void {
    Object.assign(this.view, change);
    if (!this.timer) this.timer = window.setTimeout(() => this.tell(), REDRAW_MS);
  }

  private tell(): void {
    this.timer = 0;
    this.view = { ...this.view };
    for (const listener of this.listeners) listener();
  }
}

/** The files that an output names, wherever they stand in it. */
function assetsIn(value: Json): { ref: string; mime_type?: string; size_bytes?: number }[] {
  if (Array.isArray(value)) return value.flatMap(assetsIn);
  if (!isObject(value)) return [];
  if (typeof value.ref === "string" && "sha256" in value && /^[^/].*\/./.test(value.ref)) {
    return [{ ref: value.ref, mime_type: typeof value.mime_type === "string" ? value.mime_type : undefined, size_bytes: typeof value.size_bytes === "number" ? value.size_bytes : undefined }];
  }
  return Object.values(value).flatMap(assetsIn);
}

/** The request of a payload: JSON, or a form where there are files. */
export function requestOf(payload: Payload): { body: BodyInit; headers: Record<string, string> } {
  if (!payload.files.length) return { body: `{"payload":${encode(payload.value)}}`, headers: { "content-type": "application/json" } };
  const form = new FormData();
  form.append("payload", encode(payload.value));
  for (const { name, file } of payload.files) form.append(name, file);
  return { body: form, headers: {} };
}
