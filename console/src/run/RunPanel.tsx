// A run as it goes on, and what it gave.

import { useEffect, useState, useSyncExternalStore } from "react";
import { Label } from "react-aria-components/Label";
import { ProgressBar } from "react-aria-components/ProgressBar";
import { linkTo } from "../place";
import { isObject } from "../schema/shape";
import { IS_PLATFORM } from "../server/api";
import { usePoll } from "../server/usePoll";
import { Block, bytes, duration, ProblemNote, Seen, timeLeft } from "../ui/parts";
import { Files } from "./Files";
import { Outputs } from "./Outputs";
import type { Preview } from "./preview";
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

const WORDS: Record<string, string> = { sending: "sending", queued: "waiting for its turn", starting: "starting", running: "running", succeeded: "succeeded", failed: "failed", canceled: "canceled", expired: "expired" };

/** Nothing here moves what is there already while a run goes on: what comes and goes has its room from the beginning, and the rest is added below. */
export function RunPanel({ run, retry }: { run: Run; retry?: () => void }) {
  const view = useRun(run);
  const over = isOver(view);
  return (
    <section className="run" data-status={view.status} aria-label={`Run of ${view.fn}`}>
      <p className="status">
        <span role="status">
          <span className={`badge ${view.status}`}>{WORDS[view.status] ?? view.status}</span>
          {view.stage !== view.status && <span className="stage">{view.stage}</span>}
        </span>
        {view.runId && (
          <a href={linkTo("runs", view.runId)} title={`Page of run ${view.runId}`}>
            <code>{view.runId.slice(0, 18)}</code>
          </a>
        )}
        <Clock view={view} />
      </p>
      <div className="slot">
        {over ? <Took view={view} /> : <Progress view={view} />}
        {IS_PLATFORM && view.runId && (view.status === "queued" || view.status === "starting") && <WhyItWaits runId={view.runId} />}
      </div>
      <Kept name="Log" count={view.logCount} lines={view.logs.map((each) => `${each.level === "info" ? "" : `${each.level}: `}${each.message}`)} />
      <Kept name="Events" count={view.events.length} lines={view.events} />
      {view.preview && <PreviewFigure preview={view.preview} />}
      <Files files={view.files} />
      <Outputs view={view} follow />
      {view.problem && (
        <Seen>
          <ProblemNote problem={view.problem} retry={retry} />
        </Seen>
      )}
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
    </section>
  );
}

const OPENED = "console.opened";

/** Lines that are kept of a run, in one row with the last of them. Whether they are open is kept for the tab. */
function Kept({ name, count, lines }: { name: string; count: number; lines: string[] }) {
  const [isOpen, setOpen] = useState(sessionStorage.getItem(`${OPENED}.${name}`) === "yes");
  const kept = count > lines.length ? `, the last ${lines.length.toLocaleString()} are kept` : "";
  return (
    <details
      className="kept"
      open={isOpen}
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
        sessionStorage.setItem(`${OPENED}.${name}`, event.currentTarget.open ? "yes" : "no");
      }}
    >
      <summary>
        {name} ({count.toLocaleString()}
        {kept}) <span className="last">{lines.at(-1)?.split("\n", 1)[0]}</span>
      </summary>
      {isOpen && (
        <Block follow label={name}>
          {lines.join("\n")}
        </Block>
      )}
    </details>
  );
}

/** Where the time of a run went, as far as it is known. */
function Took({ view }: { view: RunView }) {
  const { queued_ms: queued, model_ms: model, inference_ms: inference, upload_ms: upload } = view.timings ?? {};
  const parts = [
    ["waited", queued],
    ["models", model],
    ["function", inference],
    ["upload", upload],
  ] as const;
  const known = parts.filter(([, ms]) => typeof ms === "number" && ms > 0).map(([name, ms]) => `${name} ${duration(ms ?? 0)}`);
  return <p className="figures">{known.join(", ")}</p>;
}

export function PreviewFigure({ preview }: { preview: Preview }) {
  return (
    <figure className="so-far">
      <img src={preview.image} alt="What is drawn so far" />
      <figcaption>{preview.caption}</figcaption>
    </figure>
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
