// One run: what it was asked, what it gave, where its time went, and why this worker.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { go, linkTo } from "../place";
import { Files } from "../run/Files";
import type { Receipt, RunObject, SessionFacts } from "../run/run";
import { OutputValue, Shown } from "../run/Outputs";
import { PreviewFigure } from "../run/RunPanel";
import { Timeline } from "../run/Timeline";
import { isObject } from "../schema/shape";
import type { Json } from "../schema/resolve";
import { IS_PLATFORM, send, Trouble, type Problem } from "../server/api";
import { usePoll } from "../server/usePoll";
import { Block, bytes, Details, duration, pretty, ProblemNote } from "../ui/parts";
import { Head, Scroll, Took, When } from "../ui/table";
import { Deliveries } from "./Deliveries";
import { refOf } from "./Runs";
import { EventLog, useSaid } from "./EventLog";

const OVER = ["succeeded", "failed", "canceled", "expired"];

export function RunPage({ id, onUse }: { id: string; onUse: (fn: string, input: Json) => void }) {
  const [over, setOver] = useState(false);
  const { data: run, problem, again } = usePoll<RunObject>(`/v1/runs/${encodeURIComponent(id)}`, over ? 0 : 1000);
  const said = useSaid(id);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  const [note, setNote] = useState("");
  if (run && OVER.includes(run.status) !== over) setOver(!over);

  async function act(path: string, then: (run: RunObject) => void): Promise<void> {
    try {
      then(await send<RunObject>("POST", `/v1/runs/${id}/${path}`));
      setTrouble(null);
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      setTrouble(error.problem);
    }
  }

  if (!run) return problem ? <ProblemNote problem={problem} retry={again} /> : <p className="hint">Reading the run…</p>;
  const input = run.input;
  return (
    <article className="one-run" aria-labelledby="page-name">
      <p>
        <a href={linkTo("runs")}>All runs</a>
      </p>
      <h2 id="page-name">{refOf(run)}</h2>
      <p className="facts">
        <span className={`badge ${run.status}`}>{run.status}</span> <code>{run.id}</code> <When at={run.created_at} /> <Took ms={run.timings?.total_ms} />
      </p>
      <div className="buttons">
        {!over && (
          <Button className="button danger" onPress={() => void act("cancel", again)}>
            Cancel
          </Button>
        )}
        {over && IS_PLATFORM && !run.session && (
          <Button className="button" onPress={() => void act("retry", (made) => go("runs", made.id))}>
            Run again
          </Button>
        )}
        {IS_PLATFORM && run.status === "succeeded" && !run.session && (
          <Button
            className="button"
            onPress={() =>
              void act("golden", () => {
                setNote("From now on a release has to give this output for this input before a tag moves to it.");
              })
            }
          >
            Make it a golden request
          </Button>
        )}
        {input !== undefined && !run.session && (
          <Button className="button" onPress={() => onUse(run.owner ? functionId(run) : run.function, input ?? {})}>
            Edit and run
          </Button>
        )}
      </div>
      <p role="status">{note}</p>
      {trouble && <ProblemNote problem={trouble} />}
      {run.error && <ProblemNote problem={run.error} />}
      <Facts run={run} />
      <Timeline run={run} />
      <Why routing={run.routing} worker={run.worker_id ?? ""} />
      {run.stuck ? (
        <>
          <h3>Takes longer than expected</h3>
          <Block label="Where it hangs">{pretty(run.stuck)}</Block>
        </>
      ) : null}
      {!run.session && <div className="sides">
        {input !== undefined && (
          <section>
            <h3>Input</h3>
            <Shown text={pretty(input)} label="Input" />
          </section>
        )}
        <section>
          <h3>Output</h3>
          {!over && said.preview && <PreviewFigure preview={said.preview} />}
          <Files files={run.files ?? []} />
          {run.output !== undefined && run.output !== null ? (
            <OutputValue value={run.output} />
          ) : said.stream ? (
            <Shown follow={!over} text={said.stream} label="Output" />
          ) : (
            <p className="hint">{over ? "none" : "not yet"}</p>
          )}
        </section>
      </div>}
      {IS_PLATFORM && <Deliveries runId={id} />}
      <EventLog said={said} isOver={over} />
      <Details summary="The run as JSON" render={() => <Shown text={pretty(run)} label="The run as JSON" />} />
    </article>
  );
}

/** A function's id as its page has it: no tag where it is `prod`. */
function functionId(run: RunObject): string {
  return `${run.owner}/${run.endpoint}/${run.function}${run.tag === "prod" ? "" : `:${run.tag}`}`;
}

function Facts({ run }: { run: RunObject }) {
  const facts: [string, React.ReactNode][] = [];
  if (run.release_id) facts.push(["Release", <a href={linkTo("releases", run.release_id)}>{run.release_id}</a>]);
  if (run.worker_id) facts.push(["Worker", <a href={linkTo("workers", run.worker_id)}>{run.worker_id}</a>]);
  if ((run.attempt ?? 1) > 1) facts.push(["Attempt", String(run.attempt)]);
  if (run.parent_id) facts.push(["Again from", <a href={linkTo("runs", run.parent_id)}>{run.parent_id}</a>]);
  if (run.session) facts.push(...wentThrough(run.session));
  if (run.receipt) facts.push(...usedBy(run.receipt));
  if (!facts.length) return null;
  return (
    <dl className="facts-list">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** What a realtime session said and heard, and why it ended. */
function wentThrough(session: SessionFacts): [string, string][] {
  const parts: [string, string][] = [
    ["From the client", `${session.frames_in} messages, ${bytes(session.bytes_in)}`],
    ["To the client", `${session.frames_out} messages, ${bytes(session.bytes_out)}`],
  ];
  return session.reason ? [...parts, ["Ended by", session.reason]] : parts;
}

/** The parts of a receipt that are not nothing. */
function usedBy(receipt: Receipt): [string, string][] {
  const { gpu_seconds: gpu, cpu_seconds: cpu, cold_seconds: cold, downloaded_bytes: downloaded, loaded_bytes: loaded, cost } = receipt;
  const parts: [string, string][] = [];
  if (gpu) parts.push(["GPU time", duration(gpu * 1000)]);
  if (cpu) parts.push(["CPU time", duration(cpu * 1000)]);
  if (cold) parts.push(["Waited for a worker and models", duration(cold * 1000)]);
  if (downloaded) parts.push(["Downloaded", bytes(downloaded)]);
  if (loaded) parts.push(["Loaded", bytes(loaded)]);
  if (cost !== null) parts.push(["Cost", String(cost)]);
  return parts;
}

interface Candidate {
  worker_id: string;
  tier: string;
  wait_s: number;
  model_s: number;
  total_s: number;
}

const REASONS: Record<string, string> = {
  no_models: "Its function takes no models, so the worker that is free soonest was chosen.",
  loading: "Its models are on their way to the device.",
  warm_host: "Its models were in host memory.",
  warm: "Its models were on disk.",
  cold: "Its models had to be fetched.",
  hot: "Its models were on the device already.",
  no_worker: "No worker of the release is there yet.",
  busy: "All workers of the release are busy.",
  waits_for_hot: "It waits for a busy worker that has its models: that is sooner than loading them elsewhere.",
  waits_alone: "Workers were lost while they ran this, so it waits for one to itself.",
  worker_crashed: "The release's worker crashes at its start.",
  retry_later: "An attempt failed; it is tried again in a moment.",
  starting: "A worker is free; the run is next.",
  alone: "It has a worker to itself.",
};

function Why({ routing, worker }: { routing: Json | undefined; worker: string }) {
  if (!isObject(routing) || typeof routing.reason !== "string") return null;
  const considered = (Array.isArray(routing.considered) ? routing.considered : []) as unknown as Candidate[];
  const seconds = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} s`;
  return (
    <section>
      <h3>{worker ? "Why this worker" : "Why it waits"}</h3>
      <p>
        <code>{routing.reason}</code> {String(routing.detail ?? REASONS[routing.reason] ?? "")}
      </p>
      {typeof routing.last_lines === "string" && routing.last_lines && <Block label="What the worker wrote last">{routing.last_lines}</Block>}
      {considered.length > 0 && (
        <Scroll label="Workers that were considered">
          <table>
            <Head columns={["Worker", "Its models", "Wait", "Models", "In all"]} />
            <tbody>
              {considered.map((each) => (
                <tr key={each.worker_id} className={each.worker_id === worker ? "chosen" : undefined}>
                  <td>
                    {each.worker_id}
                    {each.worker_id === worker && " (chosen)"}
                  </td>
                  <td>{each.tier}</td>
                  <td className="figure">{seconds(each.wait_s)}</td>
                  <td className="figure">{seconds(each.model_s)}</td>
                  <td className="figure">{seconds(each.total_s)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}
