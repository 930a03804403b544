// The runs that this tab has started, newest first. They are kept for the tab alone, without files and secrets.

import { parseExact } from "../schema/exact";
import { isOver, Run, type RunView } from "./run";

const KEY = "console.history";
const MAX_RUNS = 100;
const MAX_BYTES = 2_000_000;
let runs: readonly Run[] = restored();
const listeners = new Set<() => void>();

export function keepRun(run: Run): void {
  runs = [run, ...runs].slice(0, MAX_RUNS);
  run.subscribe(() => {
    if (isOver(run.view)) write();
  });
  for (const listener of listeners) listener();
}

export function keptRuns(): readonly Run[] {
  return runs;
}

export function findKept(runId: string): Run | undefined {
  return runs.find((each) => each.view.runId === runId);
}

export function onKept(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function write(): void {
  const views: RunView[] = [];
  let size = 0;
  for (const { view } of runs) {
    if (!isOver(view)) continue;
    const kept = { ...view, events: [], logs: [] };
    size += JSON.stringify(kept).length;
    if (size > MAX_BYTES) break;
    views.push(kept);
  }
  try {
    sessionStorage.setItem(KEY, JSON.stringify(views));
  } catch {
    sessionStorage.removeItem(KEY); // no room: the tab still has them in memory
  }
}

function restored(): Run[] {
  try {
    const views = parseExact(sessionStorage.getItem(KEY) ?? "[]") as RunView[];
    return views.map((view) => Run.restored(view));
  } catch {
    return [];
  }
}
