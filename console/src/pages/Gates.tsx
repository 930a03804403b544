// What the gates of a release found.

import { linkTo } from "../place";
import { Block, Details, pretty } from "../ui/parts";
import { When } from "../ui/table";
import type { GateResult } from "./shapes";

export function Gates({ results }: { results: GateResult[] }) {
  if (!results.length) return <p className="hint">No gate has been run on it.</p>;
  return (
    <ul className="changes">
      {results.map((each, index) => (
        <li key={index}>
          <span className={`badge ${each.passed ? "succeeded" : "failed"}`}>{each.passed ? "passed" : "not passed"}</span> {each.kind} of {each.function} <code>{each.subject}</code>{" "}
          <When at={each.at} />
          {typeof each.detail.run_id === "string" && each.detail.run_id && (
            <>
              {" "}
              <a href={linkTo("runs", each.detail.run_id)}>its run</a>
            </>
          )}
          {!each.passed && (
            <Details summary="Why">
              <Block label="Why">{pretty(each.detail)}</Block>
            </Details>
          )}
        </li>
      ))}
    </ul>
  );
}
