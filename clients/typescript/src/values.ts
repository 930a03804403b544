/** What callers get to see: runs, their events, files. */

export interface FieldError {
  /** A JSON pointer into the payload. */
  pointer: string;
  message: string;
  expected?: string;
  got?: string;
  suggestion?: string;
}

export interface RunProblem {
  code: string;
  detail: string;
  status: number;
  retryable?: boolean;
  errors?: FieldError[];
  hint?: string | null;
}

/** A file by reference, as payloads and outputs have it. */
export interface Asset {
  ref: string;
  owner?: string | null;
  mime_type?: string | null;
  size_bytes?: number | null;
  sha256?: string | null;
}

/** A file in a run's output. `url` is a path of the server. */
export interface RunFile extends Asset {
  url?: string;
}

/** `succeeded`, `failed`, `canceled` and `expired` are for good. A newer server may have other words. */
export type RunStatus = "queued" | "starting" | "running" | "succeeded" | "failed" | "canceled" | "expired" | (string & {});

/** A run as it stands. `output` is absent before its end, and for a function that streams. */
export interface Run<Output = unknown> {
  id: string;
  status: RunStatus;
  function?: string;
  owner?: string;
  endpoint?: string;
  tag?: string;
  release_id?: string;
  attempt?: number;
  worker_id?: string | null;
  output?: Output | null;
  files?: RunFile[] | null;
  error?: RunProblem | null;
  progress?: unknown;
  warnings?: FieldError[] | null;
  timings?: Record<string, number> | null;
  routing?: unknown;
  created_at?: string | null;
  started_at?: string | null;
  finished_at?: string | null;
}

/** One event of a run. `id` resumes after it; it is empty for what is told anew to whoever comes. */
export interface RunEvent {
  id: string;
  name: "status" | "progress" | "output" | "log" | "metric" | "error" | "custom" | "restart" | "snapshot" | "done" | (string & {});
  data: unknown;
}

const OVER = new Set<string>(["succeeded", "failed", "canceled", "expired"]);

/** Whether a run is over: nothing of it changes any more. */
export function isFinished(run: Run): boolean {
  return OVER.has(run.status);
}
