// The runs that this tab has started, newest first. They are kept for the tab alone, without files and secrets.

import type { Run } from "./run";

const MAX_RUNS = 100;
let runs: readonly Run[] = [];
const listeners = new Set<() => void>();

export function keepRun(run: Run): void {
  runs = [run, ...runs].slice(0, MAX_RUNS);
  for (const listener of listeners) listener();
}

export function keptRuns(): readonly Run[] {
  return runs;
}

export function onKept(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
