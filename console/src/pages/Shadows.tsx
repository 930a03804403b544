// Shadow runs of an endpoint: a share of a tag's runs is run again on another release, and both outputs are compared.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { linkTo } from "../place";
import { send } from "../server/api";
import type { Polled } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Over } from "../ui/Confirm";
import { ProblemNote, Seen } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { ComparedNote } from "./Compared";
import type { Release, Shadow, Tag } from "./shapes";

export const shadowPath = (place: { owner: string; endpoint: string; function: string; tag: string }): string =>
  `/v1/endpoints/${[place.owner, place.endpoint].map(encodeURIComponent).join("/")}/functions/${encodeURIComponent(place.function)}/tags/${encodeURIComponent(place.tag)}/shadow`;

/** Those that go on or have ended; nothing where there were none. */
export function Shadows({ of: { data, problem, again } }: { of: Polled<{ data: Shadow[] }> }) {
  const shadows = data?.data ?? [];
  if (!shadows.length && !problem) return null;
  return (
    <>
      <h3>Shadow runs</h3>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {shadows.map((each) => (
        <ShadowCard key={`${each.function}:${each.tag}`} shadow={each} onStopped={again} />
      ))}
    </>
  );
}

function ShadowCard({ shadow, onStopped }: { shadow: Shadow; onStopped: () => void }) {
  const { act, busy, problem } = useAction();
  const name = `${shadow.function}:${shadow.tag}`;
  return (
    <article className="cell" aria-label={`Shadow runs of ${name}`}>
      <div className="facts">
        <strong>{name}</strong> <span className={`badge ${shadow.ended_at ? "" : "running"}`}>{shadow.ended_at ? "ended" : "running"}</span>
        {shadow.compared > 0 && <span className={`badge ${shadow.passed ? "succeeded" : "failed"}`}>{shadow.passed ? "all equal" : "not equal"}</span>}
        <span className="optional">
          <When at={shadow.ended_at || shadow.since} />
          {shadow.why && `: ${shadow.why}`}
        </span>
        {!shadow.ended_at && (
          <ActButton
            className="button small"
            aria-label={`Stop the shadow runs of ${name}`}
            busy={busy}
            onPress={() =>
              void act(async () => {
                await send("DELETE", shadowPath(shadow));
                onStopped();
              })
            }
          >
            Stop
          </ActButton>
        )}
      </div>
      <p>
        {shadow.percent} % of the runs on <a href={linkTo("releases", shadow.against)}>{shadow.against}</a> are run again on <a href={linkTo("releases", shadow.release_id)}>{shadow.release_id}</a>
        {shadow.runs > 0 && `, until ${shadow.runs} are compared`}
        {shadow.tolerance > 0 && `; numbers and pixels may be ${shadow.tolerance * 100} % apart`}.
      </p>
      {problem && <ProblemNote problem={problem} />}
      <ComparedNote found={shadow} label={`shadow runs of ${name}`} />
      {shadow.compared === 0 && !shadow.ended_at && <p className="hint">Nothing is compared yet: it waits for runs of {name}.</p>}
    </article>
  );
}

/** A number that a person typed; the text itself where it is none, for the server to refuse in its words. */
const numberIn = (text: string): number | string => (text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text.trim());

export function StartShadow({ tag, releases, onClose }: { tag: Tag; releases: Release[]; onClose: (began: boolean) => void }) {
  const others = releases.filter((each) => each.release_id !== tag.release_id);
  const [release, setRelease] = useState(others[0]?.release_id ?? "");
  const [percent, setPercent] = useState("10");
  const [runs, setRuns] = useState("0");
  const [tolerance, setTolerance] = useState("0");
  const { act, busy, problem } = useAction();
  const fields: [string, string, string, (text: string) => void, string][] = [
    ["percent", "Share of runs, in percent", percent, setPercent, "Where no worker is free for a copy, it is left out; callers never wait."],
    ["runs", "End after so many comparisons", runs, setRuns, "0: until it is stopped."],
    ["tolerance", "Tolerance", tolerance, setTolerance, "How far apart numbers and pixels may be, 0 to 1: 0.01 for 1 %."],
  ];
  return (
    <Over title={`Shadow runs of ${tag.endpoint}/${tag.function}:${tag.tag}`} isOpen onClose={() => onClose(false)}>
      <p>
        Runs go to <code>{tag.release_id}</code> as before. A share of them is run again on another release, and the outputs are compared. A function that changes something elsewhere does so twice.
      </p>
      {others.length === 0 ? (
        <p className="hint">There is no other release with this function.</p>
      ) : (
        <form
          id="shadow"
          onSubmit={(event) => {
            event.preventDefault();
            void act(async () => {
              await send("PUT", shadowPath(tag), { release_id: release, percent: numberIn(percent), runs: numberIn(runs), tolerance: numberIn(tolerance) });
              onClose(true);
            });
          }}
        >
          <div className="field">
            <label htmlFor="shadow-release">Copy them to</label>
            <select id="shadow-release" value={release} onChange={(event) => setRelease(event.currentTarget.value)}>
              {others.map((each) => (
                <option key={each.release_id} value={each.release_id}>
                  {each.release_id}
                  {each.message && `: ${each.message.slice(0, 60)}`}
                </option>
              ))}
            </select>
          </div>
          {fields.map(([name, label, value, change, hint]) => (
            <div className="field" key={name}>
              <label htmlFor={`shadow-${name}`}>{label}</label>
              <input id={`shadow-${name}`} type="text" inputMode="decimal" autoComplete="off" value={value} aria-describedby={`shadow-${name}-hint`} onChange={(event) => change(event.currentTarget.value)} />
              <p className="hint" id={`shadow-${name}-hint`}>
                {hint}
              </p>
            </div>
          ))}
        </form>
      )}
      {problem && (
        <Seen>
          <ProblemNote problem={problem} />
        </Seen>
      )}
      <div className="buttons">
        <ActButton type="submit" form="shadow" className="button primary" isDisabled={!release} busy={busy}>
          {busy ? "Starting…" : "Start shadow runs"}
        </ActButton>
        <Button className="button" onPress={() => onClose(false)}>
          Close
        </Button>
      </div>
    </Over>
  );
}
