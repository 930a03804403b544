// Where a run's time went: queue, fetch, load, inference, upload.

import { isObject } from "../schema/shape";
import { duration } from "../ui/parts";
import type { RunObject } from "./run";

export interface Phase {
  name: string;
  ms: number;
}

/** The phases of a run in their order, and what of the whole is none of them. */
export function phasesOf(run: RunObject): Phase[] {
  const timings = run.timings ?? {};
  const fetched = (Array.isArray(run.models) ? run.models : []).reduce<number>(
    (sum, each) => sum + (isObject(each) && typeof each.download_ms === "number" ? each.download_ms : 0),
    0,
  );
  const model = timings.model_ms ?? 0;
  const phases: Phase[] = [
    { name: "queue", ms: timings.queued_ms ?? 0 },
    { name: "fetch", ms: fetched },
    { name: "load", ms: Math.max(0, model) },
    { name: "inference", ms: timings.inference_ms ?? 0 },
    { name: "upload", ms: timings.upload_ms ?? 0 },
  ];
  const known = phases.reduce((sum, each) => sum + each.ms, 0);
  const total = timings.total_ms ?? 0;
  if (total > known) phases.push({ name: "other", ms: total - known });
  return phases.filter((each) => each.ms > 0);
}

export function Timeline({ run }: { run: RunObject }) {
  const phases = phasesOf(run);
  const sum = phases.reduce((all, each) => all + each.ms, 0);
  if (!sum) return null;
  return (
    <section>
      <h3>Timeline</h3>
      <div className="timeline" aria-hidden="true">
        {phases.map((each) => (
          <span key={each.name} className={`phase ${each.name}`} style={{ flexGrow: Math.max(each.ms / sum, 0.004) }} />
        ))}
      </div>
      <ul className="legend">
        {phases.map((each) => (
          <li key={each.name}>
            <span className={`dot ${each.name}`} aria-hidden="true" />
            {each.name} <span className="figure">{duration(each.ms)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
