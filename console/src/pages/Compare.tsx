// Two runs, or two releases, side by side.

import { linkTo } from "../place";
import { Files } from "../run/Files";
import { findKept } from "../run/history";
import type { RunObject } from "../run/run";
import { Timeline } from "../run/Timeline";
import type { Json } from "../schema/resolve";
import { usePoll } from "../server/usePoll";
import { SideBySide } from "../ui/diff";
import { pretty, ProblemNote } from "../ui/parts";
import { Took, When } from "../ui/table";
import { Changes } from "./Changes";
import { refOf } from "./Runs";
import type { Diff, Release } from "./shapes";

export function Compare({ about }: { about: string }) {
  const [kind, left = "", right = ""] = about.split("/");
  return kind === "releases" ? <Releases ids={[left, right]} /> : <TwoRuns ids={[left, right]} />;
}

interface Manifest {
  functions: { name: string; input_schema: Json; output_schema: Json }[];
}

function Releases({ ids }: { ids: [string, string] }) {
  const diff = usePoll<Diff>(`/v1/releases/${ids[0]}/diff/${ids[1]}`, 0);
  const left = usePoll<Release & { manifest: Manifest }>(`/v1/releases/${ids[0]}`, 0);
  const right = usePoll<Release & { manifest: Manifest }>(`/v1/releases/${ids[1]}`, 0);
  const problem = diff.problem ?? left.problem ?? right.problem;
  if (problem) return <ProblemNote problem={problem} />;
  if (!diff.data || !left.data || !right.data) return <p className="hint">Comparing…</p>;
  const changed = [...new Set(diff.data.changes.map((each) => each.function))];
  const text = (release: { manifest: Manifest }, name: string): string => {
    const found = release.manifest.functions.find((each) => each.name === name);
    return found ? pretty({ input: found.input_schema, output: found.output_schema }) : "";
  };
  return (
    <>
      <p>
        <a href={linkTo("endpoints", `${left.data.owner}/${left.data.endpoint}`)}>
          {left.data.owner}/{left.data.endpoint}
        </a>
      </p>
      <h2>Two releases</h2>
      <h3>What changes for callers</h3>
      <Changes changes={diff.data.changes} />
      {changed.map((name) => (
        <div key={name}>
          <h3>Schemas of {name}</h3>
          <SideBySide label={`Schemas of ${name}`} names={ids} left={text(left.data as never, name)} right={text(right.data as never, name)} />
        </div>
      ))}
    </>
  );
}

/** A run of the server with what this tab knows of it: the dev runner keeps neither input nor the text of a stream. */
function known(run: RunObject | null): { input: Json | undefined; output: Json | undefined } {
  const kept = run ? findKept(run.id)?.view : undefined;
  return { input: run?.input ?? kept?.input, output: kept?.text ? kept.text : (run?.output ?? kept?.output) };
}

function TwoRuns({ ids }: { ids: [string, string] }) {
  const left = usePoll<RunObject>(`/v1/runs/${ids[0]}`, 0);
  const right = usePoll<RunObject>(`/v1/runs/${ids[1]}`, 0);
  const problem = left.problem ?? right.problem;
  if (problem) return <ProblemNote problem={problem} />;
  if (!left.data || !right.data) return <p className="hint">Reading both…</p>;
  const both = [left.data, right.data] as const;
  const [a, b] = [known(left.data), known(right.data)];
  const text = (value: Json | undefined): string => (typeof value === "string" ? value : value === undefined ? "" : pretty(value));
  return (
    <>
      <h2>Two runs</h2>
      <div className="sides">
        {both.map((run) => (
          <div key={run.id}>
            <p className="facts">
              <a href={linkTo("runs", run.id)}>
                <code>{run.id.slice(0, 18)}</code>
              </a>
              {refOf(run)} <span className={`badge ${run.status}`}>{run.status}</span> <When at={run.created_at} /> <Took ms={run.timings?.total_ms} />
            </p>
            {run.release_id && <p className="hint">{run.release_id}</p>}
            <Timeline run={run} />
            <Files files={run.files ?? []} />
          </div>
        ))}
      </div>
      <h3>Input</h3>
      <SideBySide label="Both inputs" names={[ids[0].slice(0, 18), ids[1].slice(0, 18)]} left={text(a.input)} right={text(b.input)} />
      <h3>Output</h3>
      <SideBySide label="Both outputs" names={[ids[0].slice(0, 18), ids[1].slice(0, 18)]} left={text(a.output)} right={text(b.output)} />
    </>
  );
}
