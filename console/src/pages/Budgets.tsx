// What a key may use: runs in a time, runs at once, GPU seconds of a day or month.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { send } from "../server/api";
import { ActButton } from "../ui/ActButton";
import { Over } from "../ui/Confirm";
import { ProblemNote, Seen } from "../ui/parts";
import { useAction } from "../ui/useAction";
import type { Key } from "./shapes";

type Name = "rate" | "concurrency" | "gpu_seconds";

const FIELDS: [Name, string, string][] = [
  ["rate", "Runs in a time", "60/m"],
  ["concurrency", "Runs at once", "4"],
  ["gpu_seconds", "GPU seconds", "3600/d"],
];

export const NO_BUDGETS: Record<Name, string> = { rate: "", concurrency: "", gpu_seconds: "" };

/** As the server takes them: null where there is none. */
export function sentBudgets(budgets: Record<Name, string>): Record<Name, string | number | null> {
  const { rate, concurrency, gpu_seconds } = budgets;
  const count = concurrency.trim();
  return { rate: rate.trim() || null, concurrency: count === "" ? null : Number.isNaN(Number(count)) ? count : Number(count), gpu_seconds: gpu_seconds.trim() || null };
}

export function BudgetFields({ budgets, onChange }: { budgets: Record<Name, string>; onChange: (budgets: Record<Name, string>) => void }) {
  return FIELDS.map(([name, label, example]) => (
    <label key={name}>
      {label} <span className="optional">such as {example}</span>
      <input type="text" name={name} autoComplete="off" spellCheck={false} value={budgets[name]} onChange={(event) => onChange({ ...budgets, [name]: event.currentTarget.value })} />
    </label>
  ));
}

/** What a key has of each budget, and what of it is used. */
export function BudgetsOf({ owner: { budgets, used } }: { owner: Pick<Key, "budgets" | "used"> }) {
  const there = FIELDS.filter(([name]) => budgets?.[name]);
  if (!there.length) return <span className="optional">none</span>;
  return there.map(([name, label]) => (
    <span key={name} className="budget">
      {label.toLowerCase()} <span className="figure">{budgets?.[name]}</span>
      {used?.[name] !== undefined && <span className="optional">, {Number(used[name].toFixed(1))} used</span>}
    </span>
  ));
}

export function ChangeBudgets({ of, onClose }: { of: Key; onClose: (changed: boolean) => void }) {
  const [budgets, setBudgets] = useState({ ...NO_BUDGETS, ...Object.fromEntries(Object.entries(of.budgets ?? {}).map(([name, value]) => [name, value ? String(value) : ""])) });
  const { act, busy, problem } = useAction();
  return (
    <Over title={`Budgets of ${of.name || of.key_id}`} isOpen onClose={() => onClose(false)}>
      <form
        id="budgets"
        className="filters"
        onSubmit={(event) => {
          event.preventDefault();
          void act(async () => {
            await send("PATCH", `/v1/keys/${encodeURIComponent(of.key_id)}`, sentBudgets(budgets));
            onClose(true);
          });
        }}
      >
        <BudgetFields budgets={budgets} onChange={setBudgets} />
      </form>
      <p className="hint">They hold from the next request on; what was used before counts. An empty field is no bound.</p>
      {problem && (
        <Seen>
          <ProblemNote problem={problem} />
        </Seen>
      )}
      <div className="buttons">
        <ActButton type="submit" form="budgets" className="button primary" busy={busy}>
          Keep
        </ActButton>
        <Button className="button" onPress={() => onClose(false)}>
          Close
        </Button>
      </div>
    </Over>
  );
}
