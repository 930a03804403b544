// Promote or roll back one tag: what changes for callers and what the gates found stand before the click.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { Over } from "../ui/Confirm";
import { ProblemNote } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { Changes } from "./Changes";
import { Gates } from "./Gates";
import type { Diff, GateResult, Release, Tag } from "./shapes";

export function MoveTag({ tag, releases, onClose }: { tag: Tag; releases: Release[]; onClose: (moved: boolean) => void }) {
  const path = `/v1/endpoints/${tag.owner}/${tag.endpoint}/functions/${tag.function}/tags/${tag.tag}`;
  const { data: told } = usePoll<Tag>(path, 0);
  const others = releases.filter((each) => each.release_id !== tag.release_id);
  const [wanted, setWanted] = useState(others[0]?.release_id ?? "");
  const [breaking, setBreaking] = useState(false);
  const [skipGates, setSkipGates] = useState(false);
  const [now, setNow] = useState(false);
  const [canary, setCanary] = useState("");
  const { busy, problem, act } = useAction();
  const diff = usePoll<Diff>(wanted ? `/v1/releases/${tag.release_id}/diff/${wanted}` : "", 0);
  const gates = usePoll<{ data: GateResult[] }>(wanted ? `/v1/releases/${wanted}/gates` : "", 0);
  const history = told?.history ?? [];
  const isBack = history.some((each) => each.release_id === wanted);
  const before = history.find((each) => each.release_id !== tag.release_id)?.release_id;
  const changes = (diff.data?.changes ?? []).filter((each) => each.function === tag.function);
  const breaks = changes.some((each) => each.breaking) && !isBack;
  const results = (gates.data?.data ?? []).filter((each) => each.function === tag.function);

  const move = () =>
    act(async () => {
      const percent = canary.trim() === "" ? {} : { canary: Number(canary) };
      await send("PUT", path, { release_id: wanted, expected: tag.release_id, breaking, skip_gates: skipGates, now, ...percent });
      onClose(true);
    });

  return (
    <Over title={`${tag.endpoint}/${tag.function}:${tag.tag}`} isOpen onClose={() => onClose(false)}>
      <p>
        It points at <code>{tag.release_id}</code> since <When at={tag.moved_at} />.
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
                  {each.release_id === before ? " (where it was before)" : ""}
                </option>
              ))}
            </select>
          </div>
          <h3>What changes for callers</h3>
          {diff.problem ? <ProblemNote problem={diff.problem} /> : diff.data ? <Changes changes={changes} /> : <p className="hint">Comparing…</p>}
          <h3>Gates</h3>
          <Gates results={results} />
          <p className="hint">Golden requests of the function are run before the tag moves.</p>
          <Tickable checked={skipGates} onChange={setSkipGates} text="Skip the golden requests" />
          {breaks && <Tickable checked={breaking} onChange={setBreaking} text="I know that this breaks callers" />}
          <Tickable checked={now} onChange={setNow} text="Do not wait until a worker is ready" />
          <div className="field">
            <label htmlFor="canary">
              Canary <span className="optional">optional</span>
            </label>
            <input id="canary" type="text" inputMode="decimal" autoComplete="off" value={canary} onChange={(event) => setCanary(event.currentTarget.value)} placeholder="all runs" aria-describedby="canary-hint" />
            <p className="hint" id="canary-hint">
              Percent of the tag's runs; the tag stays where it is. 0 ends a canary.
            </p>
          </div>
        </>
      )}
      {problem && <ProblemNote problem={problem} />}
      {problem?.errors && (
        <ul className="warnings">
          {problem.errors.map((each, index) => (
            <li key={index}>
              <code>{each.pointer || "/"}</code> {each.message}
            </li>
          ))}
        </ul>
      )}
      <div className="buttons">
        <Button className="button primary" isDisabled={!wanted || busy || (breaks && !breaking)} onPress={() => void move()}>
          {busy ? "Moving…" : canary.trim() !== "" ? "Start the canary" : isBack ? "Roll back" : "Promote"}
        </Button>
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
