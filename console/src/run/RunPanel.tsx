// A run as it goes on, and what it gave.

import { useEffect, useState, useSyncExternalStore } from "react";
import { Label } from "react-aria-components/Label";
import { ProgressBar } from "react-aria-components/ProgressBar";
import { isObject } from "../schema/shape";
import type { Json } from "../schema/resolve";
import { IS_PLATFORM } from "../server/api";
import { usePoll } from "../server/usePoll";
import { Block, bytes, CopyButton, Details, duration, pretty, ProblemNote, timeLeft } from "../ui/parts";
import { Files } from "./Files";
import { isOver, type ModelProgress, type Run, type RunObject, type RunView } from "./run";

export function useRun(run: Run): RunView {
  return useSyncExternalStore(run.subscribe, run.snapshot);
}

const never = () => () => undefined;
const none = () => null;

/** The same where there may be no run yet. */
export function useRunIfAny(run: Run | undefined): RunView | null {
  return useSyncExternalStore<RunView | null>(run?.subscribe ?? never, run?.snapshot ?? none);
}

const MAX_SHOWN = 200_000; // a browser lays out no more many times a second

const WORDS: Record<string, string> = { sending: "sending", queued: "waiting for its turn", starting: "starting", running: "running", succeeded: "succeeded", failed: "failed", canceled: "canceled", expired: "expired" };

export function RunPanel({ run, retry }: { run: Run; retry?: () => void }) {
  const view = useRun(run);
  const over = isOver(view);
  return (
    <section className="run" data-status={view.status} aria-label={`Run of ${view.fn}`}>
      <p className="status">
        <span role="status">
          <span className={`badge ${view.status}`}>{WORDS[view.status] ?? view.status}</span>
          <span className="stage">{view.stage}</span>
        </span>
        <Clock view={view} />
      </p>
      {!over && <Progress view={view} />}
      {IS_PLATFORM && view.runId && (view.status === "queued" || view.status === "starting") && <WhyItWaits runId={view.runId} />}
      {view.problem && <ProblemNote problem={view.problem} retry={retry} />}
      {view.warnings.length > 0 && (
        <ul className="warnings">
          {view.warnings.map((each, index) => (
            <li key={index}>
              {each.pointer}: {each.message}
              {each.suggestion ? `; did you mean ${each.suggestion}?` : ""}
            </li>
          ))}
        </ul>
      )}
      <Files files={view.files} />
      <Outputs view={view} />
      {view.logs.length > 0 && (
        <Details summary={`Log (${view.logs.length})`} open>
          <Block follow label="Log">
            {view.logs.map((each) => `${each.level === "info" ? "" : `${each.level}: `}${each.message}`).join("\n")}
          </Block>
        </Details>
      )}
      {view.events.length > 0 && (
        <Details summary="Events">
          <Block follow label="Events">
            {view.events.join("\n")}
          </Block>
        </Details>
      )}
    </section>
  );
}

/** What a run of the platform waits for. */
function WhyItWaits({ runId }: { runId: string }) {
  const { data } = usePoll<RunObject>(`/v1/runs/${runId}`, 2000);
  const routing = data?.routing;
  return isObject(routing) && typeof routing.detail === "string" ? <p className="hint">{routing.detail}</p> : null;
}

function Clock({ view }: { view: RunView }) {
  const [now, setNow] = useState(Date.now());
  const over = isOver(view);
  useEffect(() => {
    if (over) return;
    const timer = setInterval(() => setNow(Date.now()), 200);
    return () => clearInterval(timer);
  }, [over]);
  const took = view.timings?.total_ms ?? (view.endedMs ?? Math.max(now, view.beganMs)) - view.beganMs;
  return (
    <span className="clock">
      {duration(took)}
      {over && view.timings?.queued_ms !== undefined && view.timings.queued_ms > 20 ? `, ${duration(view.timings.queued_ms)} of it queued` : ""}
    </span>
  );
}

function Progress({ view }: { view: RunView }) {
  const loading = view.models.filter((each) => each.phase !== "ready");
  return (
    <>
      {loading.map((each) => (
        <ModelBar key={each.model_id} progress={each} />
      ))}
      <ProgressBar className="progress" value={(view.progress ?? 0) * 100} isIndeterminate={view.progress === null}>
        {({ percentage, isIndeterminate }) => (
          <>
            <Label className="hidden-label">Progress of the run</Label>
            <span className="bar">
              <span className={isIndeterminate ? "fill moving" : "fill"} style={isIndeterminate ? undefined : { width: `${percentage}%` }} />
            </span>
            {!isIndeterminate && (
              <span className="figures">
                {Math.round(percentage ?? 0)} %{view.etaS !== null && view.etaS > 0.5 ? `, ${timeLeft(view.etaS)}` : ""}
              </span>
            )}
          </>
        )}
      </ProgressBar>
    </>
  );
}

export function ModelBar({ progress }: { progress: ModelProgress }) {
  const { bytes_done: done = 0, bytes_total: total = 0, rate_bytes_s: rate = 0, eta_s: eta } = progress;
  const figures = [total > 0 && `${bytes(done)} of ${bytes(total)}`, rate > 0 && `${bytes(rate)}/s`, typeof eta === "number" && timeLeft(eta)].filter(Boolean).join(", ");
  return (
    <ProgressBar className="progress model" value={total > 0 ? Math.min(100, (done / total) * 100) : 0} isIndeterminate={total === 0}>
      {({ percentage, isIndeterminate }) => (
        <>
          <Label>
            {progress.phase} {progress.model_id}
          </Label>
          <span className="bar">
            <span className={isIndeterminate ? "fill moving" : "fill"} style={isIndeterminate ? undefined : { width: `${percentage}%` }} />
          </span>
          <span className="figures">{figures}</span>
        </>
      )}
    </ProgressBar>
  );
}

function Outputs({ view }: { view: RunView }) {
  if (view.items.length) {
    const lines = (): string => view.items.map((each) => JSON.stringify(each)).join("\n");
    if (!view.text) return <Block follow className="output" label="Output">{lines()}</Block>;
    return (
      <>
        <Shown follow text={view.text} label="Output" />
        <Details summary={`Pieces (${view.items.length})`} render={() => <Block label="Pieces">{lines()}</Block>} />
      </>
    );
  }
  if (view.output === undefined || view.output === null) return null;
  return <OutputValue value={view.output} />;
}

/** An output: its text where it is one text, else its JSON. */
export function OutputValue({ value, name = "Output" }: { value: Json; name?: string }) {
  const text = onlyText(value);
  if (text === null) return <Shown text={pretty(value)} label={name} />;
  return (
    <>
      <Shown text={text} label={name} />
      <Details summary="JSON">
        <Block label={`${name} as JSON`}>{pretty(value)}</Block>
      </Details>
    </>
  );
}

function Shown({ text, label, follow = false }: { text: string; label: string; follow?: boolean }) {
  return (
    <div className="shown">
      {text.length > MAX_SHOWN && <p className="hint">The last {MAX_SHOWN} characters of {text.length}; the copy has all.</p>}
      <Block follow={follow} className="output" label={label}>
        {text.slice(-MAX_SHOWN)}
      </Block>
      <CopyButton text={text} label="Copy output" />
    </div>
  );
}

function onlyText(value: Json): string | null {
  if (typeof value === "string") return value;
  if (!isObject(value)) return null;
  const entries = Object.entries(value);
  const only = entries.length === 1 ? entries[0]?.[1] : undefined;
  return typeof only === "string" && only.includes(" ") ? only : null;
}
