// What the gates of a release found.

import { linkTo } from "../place";
import { Details } from "../ui/parts";
import { When } from "../ui/table";
import { ComparedNote, Differences } from "./Compared";
import type { Compared, Difference, GateResult } from "./shapes";

const NAMES: Record<string, string> = { golden: "golden request", canary: "canary at", shadow: "shadow runs of" };

export function Gates({ results }: { results: GateResult[] }) {
  if (!results.length) return <p className="hint">No gate has been run on it.</p>;
  return (
    <ul className="changes gates">
      {results.map((each) => (
        <li key={`${each.function} ${each.kind} ${each.subject}`} className={each.passed ? undefined : "breaking"}>
          <span className={`badge ${each.passed ? "succeeded" : "failed"}`}>{each.passed ? "passed" : "failed"}</span> {each.function}: {NAMES[each.kind] ?? each.kind} <code>{each.subject}</code>{" "}
          <span className="optional">
            <When at={each.at} />
          </span>
          {typeof each.detail.run_id === "string" && each.detail.run_id && (
            <>
              {" "}
              <a href={linkTo("runs", each.detail.run_id)}>its run</a>
            </>
          )}
          <Found result={each} />
        </li>
      ))}
    </ul>
  );
}

/** Why a gate said what it said: a failure at once, what passed when somebody asks. */
function Found({ result: { detail, passed, kind, function: fn, subject } }: { result: GateResult }) {
  const label = `${kind} ${subject} of ${fn}`;
  const note = () => <ComparedNote found={detail as unknown as Compared} label={label} />;
  const error = typeof detail.error === "string" ? detail.error : "";
  const differences = (Array.isArray(detail.differences) ? detail.differences : []) as Difference[];
  const runs = kind === "canary" && typeof detail.runs === "number" ? ` It had ${String(detail.percent)} % of the runs, ${detail.runs} of them were looked at.` : "";
  return (
    <>
      {error && (
        <p className="wrong">
          {error}
          {runs && `.${runs}`}
        </p>
      )}
      <Differences rows={differences} label={label} />
      {"compared" in detail && (passed ? <Details summary="What was compared" render={note} /> : note())}
    </>
  );
}
