// The runs of this tab as a notebook: what was asked, what came, and again.

import { useState, useSyncExternalStore } from "react";
import { Button } from "react-aria-components/Button";
import { go, linkTo } from "../place";
import { Files } from "../run/Files";
import { keepRun, keptRuns, onKept } from "../run/history";
import { isOver, Run } from "../run/run";
import { Outputs } from "../run/Outputs";
import { useRun } from "../run/RunPanel";
import type { Json } from "../schema/resolve";
import { Block, duration, pretty, ProblemNote } from "../ui/parts";

export function History({ onUse, onRun }: { onUse: (fn: string, input: Json) => void; onRun: (run: Run) => void }) {
  const runs = useSyncExternalStore(onKept, keptRuns);
  const [chosen, setChosen] = useState<string[]>([]);
  return (
    <>
      <h2>History</h2>
      <p className="hint">What this tab has run, newest first. It is kept as long as the tab; secrets and files are not kept.</p>
      {runs.length === 0 && (
        <p className="hint">
          Nothing yet. <a href={linkTo("run")}>Try a function.</a>
        </p>
      )}
      {runs.length > 1 && (
        <Button className="button" isDisabled={chosen.length !== 2} onPress={() => go("compare", `runs/${[...chosen].reverse().join("/")}`)}>
          Compare two runs
        </Button>
      )}
      {runs.map((run) => (
        <Cell
          key={run.view.number}
          run={run}
          isChosen={chosen.includes(run.view.runId)}
          onChoose={(on) => setChosen(on ? [...chosen, run.view.runId].slice(-2) : chosen.filter((each) => each !== run.view.runId))}
          onUse={onUse}
          onRun={onRun}
        />
      ))}
    </>
  );
}

interface CellProps {
  run: Run;
  isChosen: boolean;
  onChoose: (on: boolean) => void;
  onUse: (fn: string, input: Json) => void;
  onRun: (run: Run) => void;
}

function Cell({ run, isChosen, onChoose, onUse, onRun }: CellProps) {
  const view = useRun(run);
  return (
    <article className="cell" aria-label={`${view.fn}, run ${view.number}`}>
      <p className="facts">
        <label className="plain-tick">
          <input type="checkbox" disabled={!view.runId} checked={isChosen} onChange={(event) => onChoose(event.currentTarget.checked)} /> compare
        </label>
        <strong>{view.fn}</strong> <span className={`badge ${view.status}`}>{view.status}</span> <span className="clock">{view.endedMs !== null && duration(view.timings?.total_ms ?? view.endedMs - view.beganMs)}</span>
        {view.runId && (
          <a href={linkTo("runs", view.runId)}>
            <code>{view.runId.slice(0, 18)}</code>
          </a>
        )}
      </p>
      <div className="sides">
        <div>
          <Block label={`Input of run ${view.number}`}>{pretty(view.input).slice(0, 20_000)}</Block>
          {view.fileNames.length > 0 && <p className="hint">{view.fileNames.join(", ")}</p>}
          <div className="buttons">
            {run.canRunAgain && (
              <Button
                className="button small"
                isDisabled={!isOver(view)}
                onPress={() => {
                  const again = run.again();
                  keepRun(again);
                  onRun(again);
                  void again.begin();
                }}
              >
                Run again
              </Button>
            )}
            <Button className="button small" onPress={() => onUse(view.fn, view.input)}>
              Edit and run
            </Button>
          </div>
        </div>
        <div>
          {view.problem && <ProblemNote problem={view.problem} />}
          <Files files={view.files} />
          <Outputs view={view} name={`Output of run ${view.number}`} />
        </div>
      </div>
    </article>
  );
}
