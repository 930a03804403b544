// Workers: what each does, and its models by tier; and what waits in the queues.

import { useEffect, useRef, useState } from "react";
import { Label } from "react-aria-components/Label";
import { Meter } from "react-aria-components/Meter";
import { linkTo } from "../place";
import { get, send, Trouble } from "../server/api";
import { pause } from "../server/events";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Block, bytes, ProblemNote } from "../ui/parts";
import { Head, Scroll } from "../ui/table";
import { useAction } from "../ui/useAction";
import type { ModelTier, Status, Worker } from "./shapes";

export function Workers() {
  const { data, problem, again } = usePoll<Status>("/v1/status", 2000);
  const busy = (data?.lanes ?? []).filter((each) => each.queued || each.running);
  return (
    <>
      <h2>Workers</h2>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {data && (
        <p className="hint">
          {data.open_runs} open runs, {data.workers.length} workers
        </p>
      )}
      {Object.entries({ ...data?.paused, ...data?.failures }).map(([release, why]) => (
        <div className="problem" key={release}>
          <p>
            <a href={linkTo("releases", release)}>{release}</a>
          </p>
          <pre>{why}</pre>
        </div>
      ))}
      <div className="cards">
        {(data?.workers ?? []).map((each) => (
          <WorkerCard key={each.worker_id} worker={each} />
        ))}
      </div>
      {data && data.workers.length === 0 && <p className="hint">No worker is here now. One is started when a run comes, where this platform can.</p>}
      <h3>Queues</h3>
      {busy.length === 0 ? (
        <p className="hint">Nothing waits.</p>
      ) : (
        <Scroll label="Queues">
          <table>
            <Head columns={["Function", "Release", "Running", "Queued"]} />
            <tbody>
              {busy.map((each) => (
                <tr key={`${each.release_id} ${each.function}`}>
                  <td>{each.function}</td>
                  <td>
                    <a href={linkTo("releases", each.release_id)}>{each.release_id}</a>
                  </td>
                  <td className="figure">{each.running}</td>
                  <td className="figure">{each.queued}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}

function WorkerCard({ worker }: { worker: Worker }) {
  return (
    <article className="card">
      <p className="facts">
        <a href={linkTo("workers", worker.worker_id)}>{worker.worker_id}</a> <span className={`badge ${worker.state}`}>{worker.state}</span>
      </p>
      <p className="hint">
        <a href={linkTo("releases", worker.release_id)}>{worker.release_id}</a>
        {worker.gpu && `, ${worker.gpu}`}
      </p>
      {worker.runs.length > 0 && (
        <p>
          runs{" "}
          {worker.runs.map((each) => (
            <a key={each} className="tag" href={linkTo("runs", each)}>
              {each.slice(0, 14)}
            </a>
          ))}
        </p>
      )}
      <Memory worker={worker} />
    </article>
  );
}

const TIERS: [string, string][] = [
  ["vram", "On the device"],
  ["host", "In host memory"],
  ["disk", "On disk"],
];

/** Models by tier, each tier as a bar. A tier whose size is not known is as long as what lies in it. */
function Memory({ worker }: { worker: Worker }) {
  const memory = worker.memory;
  const models: ModelTier[] = memory?.models.length
    ? memory.models
    : [...worker.vram_models.map((model) => ({ model, tier: "vram", size_bytes: 0 })), ...worker.disk_models.map((model) => ({ model, tier: "disk", size_bytes: 0 }))];
  const tiers = TIERS.map(([tier, name]) => {
    const here = models.filter((each) => each.tier === tier);
    const used = here.reduce((sum, each) => sum + each.size_bytes, 0);
    const total = tier === "vram" ? (memory?.gpu_bytes ?? 0) : tier === "host" ? (memory?.host_bytes ?? 0) : 0;
    return { tier, name, here, used: tier === "vram" ? Math.max(used, memory?.gpu_used_bytes ?? 0) : used, total };
  }).filter((each) => each.here.length || (each.tier === "vram" && each.total > 0));
  if (!tiers.length) return <p className="hint">It holds no models.</p>;
  return tiers.map(({ tier, name, here, used, total }) => (
    <Meter key={tier} className="meter" value={total ? Math.min(100, (used / total) * 100) : here.length ? 100 : 0} valueLabel={total ? `${bytes(used)} of ${bytes(total)}` : used ? bytes(used) : `${here.length} ${here.length === 1 ? "model" : "models"}`}>
      {({ valueText }) => (
        <>
          <Label>{name}</Label> <span className="figures">{valueText}</span>
          <span className="bar tall" aria-hidden="true">
            {here.map((each, index) => (
              <span key={each.model} className={`fill share s${index % 4}`} style={{ width: `${((each.size_bytes || 1) / Math.max(total, used, here.length && !used ? here.length : 1)) * 100}%` }} />
            ))}
          </span>
          <ul className="legend">
            {here.map((each, index) => (
              <li key={each.model}>
                <span className={`dot s${index % 4}`} aria-hidden="true" />
                {each.model} <span className="figures">{each.size_bytes > 0 && bytes(each.size_bytes)}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </Meter>
  ));
}

export function WorkerPage({ id }: { id: string }) {
  const { data } = usePoll<{ data: Worker[] }>("/v1/workers", 2000);
  const worker = data?.data.find((each) => each.worker_id === id);
  const drain = useAction();
  const log = useLog(`/v1/workers/${encodeURIComponent(id)}/logs`, (found: { lines: string[]; next: number }) => found.lines, "");
  return (
    <>
      <p>
        <a href={linkTo("workers")}>All workers</a>
      </p>
      <h2>{id}</h2>
      {worker ? <WorkerCard worker={worker} /> : data && <p className="hint">It is not here any more.</p>}
      {worker && (
        <div className="buttons">
          <ActButton className="button danger" isDisabled={worker.state === "draining"} busy={drain.busy} onPress={() => void drain.act(async () => void (await send("POST", `/v1/workers/${encodeURIComponent(id)}/drain`)))}>
            Drain: no more runs, then end
          </ActButton>
        </div>
      )}
      {drain.problem && <ProblemNote problem={drain.problem} />}
      <h3>Log</h3>
      {log.problem && <p className="hint">{log.problem}</p>}
      <Block follow label="Log of the worker">
        {log.lines.map(readable).join("\n")}
      </Block>
    </>
  );
}

/** A line of a worker's log. Ours are JSON: when, how grave, what, and then the facts. */
function readable(line: string): string {
  if (!line.startsWith("{")) return line;
  try {
    const { time, level, event, ...facts } = JSON.parse(line) as { [key: string]: unknown };
    if (typeof time !== "string" || typeof event !== "string") return line;
    const told = Object.entries(facts).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    return [time.slice(0, 19).replace("T", " "), level, event, ...told].join(" ");
  } catch {
    return line; // of the author's own
  }
}

const MAX_LINES = 3000;

/** Lines of a log, followed by long polls: what a page of `path` holds, then what comes after `next`. */
export function useLog<T extends { next: number; status?: string }>(path: string, linesOf: (found: T) => string[], over: string): { lines: string[]; problem: string; last: T | null } {
  const [state, setState] = useState<{ lines: string[]; problem: string; last: T | null }>({ lines: [], problem: "", last: null });
  const read = useRef(linesOf);
  read.current = linesOf;
  useEffect(() => {
    const stop = new AbortController();
    let lines: string[] = [];
    async function follow(): Promise<void> {
      for (let next: number | null = null; ; ) {
        try {
          const found: T = await get<T>(`${path}?${next === null ? "" : `after=${next}&wait=20`}`, stop.signal);
          lines = [...lines, ...read.current(found)].slice(-MAX_LINES);
          setState({ lines, problem: "", last: found });
          if (over && found.next === next && found.status && !over.split(" ").includes(found.status)) return;
          next = found.next;
        } catch (error) {
          if (stop.signal.aborted) return;
          if (!(error instanceof Trouble)) throw error;
          setState((before) => ({ ...before, problem: error.message }));
          if (!error.isDown) return;
          await pause(2000, stop.signal);
        }
      }
    }
    follow().catch((error: Error) => {
      if (error.name !== "AbortError") throw error;
    });
    return () => stop.abort();
  }, [path, over]);
  return state;
}
