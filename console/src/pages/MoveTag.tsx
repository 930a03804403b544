// Promote or roll back one tag: what changes for callers and what the gates found stand before the click.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Over } from "../ui/Confirm";
import { ProblemNote, Seen } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { Changes } from "./Changes";
import { Gates } from "./Gates";
import type { Diff, GateResult, Release, Tag } from "./shapes";

export const tagPath = (tag: Tag): string =>
  `/v1/endpoints/${[tag.owner, tag.endpoint].map(encodeURIComponent).join("/")}/functions/${encodeURIComponent(tag.function)}/tags/${encodeURIComponent(tag.tag)}`;

export function MoveTag({ tag, releases, onClose }: { tag: Tag; releases: Release[]; onClose: (moved: boolean) => void }) {
  const path = tagPath(tag);
  const { data: told } = usePoll<Tag>(path, 0);
  const others = releases.filter((each) => each.release_id !== tag.release_id);
  const [wanted, setWanted] = useState(tag.candidate?.release_id ?? others[0]?.release_id ?? "");
  const [breaking, setBreaking] = useState(false);
  const [skipGates, setSkipGates] = useState(false);
  const [now, setNow] = useState(false);
  const [isCanary, setCanary] = useState(false);
  const [percent, setPercent] = useState("10");
  const { busy, problem, act } = useAction();
  const diff = usePoll<Diff>(wanted ? `/v1/releases/${tag.release_id}/diff/${wanted}` : "", 0);
  const gates = usePoll<{ data: GateResult[] }>(wanted ? `/v1/releases/${wanted}/gates` : "", 0);
  const history = told?.history ?? [];
  const isBack = history.some((each) => each.release_id === wanted);
  const before = history.find((each) => each.release_id !== tag.release_id)?.release_id;
  const changes = (diff.data?.changes ?? []).filter((each) => each.function === tag.function);
  const breaks = changes.some((each) => each.breaking) && !isBack;
  const results = (gates.data?.data ?? []).filter((each) => each.function === tag.function);

  const failed = results.filter((each) => !each.passed).length;
  const allTheSame = failed > 0 || skipGates;

  const move = () =>
    act(async () => {
      const share = isCanary ? { canary: percent.trim() === "" || Number.isNaN(Number(percent)) ? percent : Number(percent) } : {};
      try {
        await send("PUT", path, { release_id: wanted, expected: tag.release_id, breaking, skip_gates: skipGates, now, ...share });
      } finally {
        gates.again(); // golden requests were run: what they found is shown above
      }
      onClose(true);
    });

  return (
    <Over title={`${tag.endpoint}/${tag.function}:${tag.tag}`} isOpen onClose={() => onClose(false)}>
      <p>
        It points at <code>{tag.release_id}</code> since <When at={tag.moved_at} />.
        {tag.candidate && (
          <>
            {" "}
            <code>{tag.candidate.release_id}</code> gets {tag.candidate.percent} % of its runs.
          </>
        )}
      </p>
      {others.length === 0 ? (
        <p className="hint">There is no other release with this function.</p>
      ) : (
        <>
          <div className="field">
            <label htmlFor="wanted">Move it to</label>
            <select id="wanted" value={wanted} onChange={(event) => (setWanted(event.currentTarget.value), setBreaking(false))}>
              {others.map((each) => (
                <option key={each.release_id} value={each.release_id}>
                  {each.release_id}
                  {each.message && `: ${each.message.slice(0, 60)}`}
                  {each.release_id === before ? " (where it was before)" : each.release_id === tag.candidate?.release_id ? " (the canary)" : ""}
                </option>
              ))}
            </select>
          </div>
          <h3>What changes for callers</h3>
          {diff.problem ? <ProblemNote problem={diff.problem} /> : diff.data ? <Changes changes={changes} /> : <p className="hint">Comparing…</p>}
          <h3>Gates</h3>
          {gates.problem ? <ProblemNote problem={gates.problem} /> : gates.data ? <Gates results={results} /> : <p className="hint">Reading what they found…</p>}
          {failed > 0 && (
            <p className="wrong" role="status">
              {failed === 1 ? "One gate" : `${failed} gates`} failed on this release. Golden requests are run again before the tag moves, and hold it back; canaries and shadow runs do not.
            </p>
          )}
          {failed === 0 && <p className="hint">Golden requests of the function are run before the tag moves.</p>}
          <Tickable checked={skipGates} onChange={setSkipGates} text="Skip the golden requests" />
          {breaks && <Tickable checked={breaking} onChange={setBreaking} text="I know that this breaks callers" />}
          <Tickable checked={now} onChange={setNow} text="Do not wait until a worker is ready" />
          <Tickable checked={isCanary} onChange={setCanary} text="Only a share of the runs: a canary. The tag stays where it is" />
          {isCanary && (
            <div className="field">
              <label htmlFor="canary">Share of the tag's runs, in percent</label>
              <input id="canary" type="text" inputMode="decimal" autoComplete="off" value={percent} onChange={(event) => setPercent(event.currentTarget.value)} aria-describedby="canary-hint" />
              <p className="hint" id="canary-hint">
                It is taken back by itself where its runs fail more often or take longer than the others.
              </p>
            </div>
          )}
        </>
      )}
      {problem && (
        <Seen>
          <ProblemNote problem={problem} />
        </Seen>
      )}
      <div className="buttons">
        <ActButton className={`button ${allTheSame && !isBack ? "danger" : "primary"}`} isDisabled={!wanted || (breaks && !breaking)} busy={busy} onPress={() => void move()}>
          {busy ? "Moving…" : `${isCanary ? "Start the canary" : isBack ? "Roll back" : "Promote"}${allTheSame && !isBack ? " all the same" : ""}`}
        </ActButton>
        <Button className="button" onPress={() => onClose(false)}>
          Close
        </Button>
      </div>
    </Over>
  );
}

function Tickable({ checked, onChange, text }: { checked: boolean; onChange: (on: boolean) => void; text: string }) {
  return (
    <label className="plain-tick">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} /> {text}
    </label>
  );
}
