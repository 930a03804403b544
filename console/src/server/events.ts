// A run's events as they come: server-sent events, read from the answer of a request, and taken up again where they were cut.

import { parseExact } from "../schema/exact";
import { ask, Trouble } from "./api";

export interface RunEvent {
  id: string;
  name: string;
  data: unknown;
}

const TRIES = 6; // of a server that answers, and ends the stream with nothing in it
const MAX_PAUSE_MS = 2000;
// Answers of a platform that starts, or of a proxy before one: the run goes on meanwhile, so they are not its end.
const PASSING = new Set([408, 425, 429, 502, 503, 504]);

/** Start a run and give its events until `done`. A stream that is cut is taken up again, however long the server is away; `onRun` gets the run's id
 * as soon as it is known, `onLost` whether the connection is lost now. */
export async function* follow(
  path: string,
  request: { body: BodyInit; headers: Record<string, string> },
  onRun: (runId: string) => void,
  onLost: (isLost: boolean) => void,
  signal: AbortSignal,
  query = "",
): AsyncGenerator<RunEvent> {
  const response = await ask(path + query, {
    method: "POST",
    body: request.body,
    headers: { ...request.headers, accept: "text/event-stream" },
    signal,
  });
  const runId = response.headers.get("x-run-id") ?? "";
  onRun(runId);
  yield* goOn(runId, response, signal, query, onLost);
}

/** The events of a run that is there, from its first on. */
export async function* followRun(runId: string, signal: AbortSignal, query = ""): AsyncGenerator<RunEvent> {
  yield* goOn(encodeURIComponent(runId), null, signal, query);
}

async function* goOn(runId: string, response: Response | null, signal: AbortSignal, query: string, onLost: (isLost: boolean) => void = () => undefined): AsyncGenerator<RunEvent> {
  const accept = "text/event-stream";
  let last = "";
  for (let tries = 0, empty = 0; ; ) {
    try {
      response ??= await ask(`/v1/runs/${runId}/events${query}`, { headers: { accept, ...(last ? { "last-event-id": last } : {}) }, signal });
      if (tries) onLost(false);
      tries = 0;
      for await (const event of eventsOf(response)) {
        empty = 0;
        if (event.id) last = event.id;
        yield event;
        if (event.name === "done") return;
      }
      if (response.status === 204) return;
      empty++;
    } catch (error) {
      if (signal.aborted || !runId || (error instanceof Trouble && !error.isDown && !PASSING.has(error.problem.status ?? 0))) throw error;
    }
    response = null;
    if (empty > TRIES) throw new Trouble({ title: "the stream was cut", detail: "The connection was lost, and the run could not be found again.", code: "cut" }, true);
    if (!tries) onLost(true);
    await pause(Math.min(MAX_PAUSE_MS, 250 * 2 ** ++tries), signal);
  }
}

async function* eventsOf(response: Response): AsyncGenerator<RunEvent> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop() ?? "";
      for (const frame of frames) {
        const event = parseFrame(frame);
        if (event) yield event;
      }
    }
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Trouble({ title: "the stream was cut" }, true);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

export function parseFrame(frame: string): RunEvent | null {
  const found: RunEvent = { id: "", name: "message", data: undefined };
  const data: string[] = [];
  for (const line of frame.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(line[at + 1] === " " ? at + 2 : at + 1);
    const field = line.slice(0, at);
    if (field === "id") found.id = value;
    else if (field === "event") found.name = value;
    else if (field === "data") data.push(value);
  }
  if (!data.length) return null;
  found.data = parseExact(data.join("\n"));
  return found;
}

export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}
