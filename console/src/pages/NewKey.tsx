// A form that makes a key.

import { useState } from "react";
import { send } from "../server/api";
import { ActButton } from "../ui/ActButton";
import { Details, ProblemNote } from "../ui/parts";
import { useAction } from "../ui/useAction";
import { BudgetFields, NO_BUDGETS, sentBudgets } from "./Budgets";
import type { MadeKey } from "./shapes";

const SCOPES = ["invoke", "publish", "promote", "admin"];

export function NewKey({ onMade }: { onMade: (made: MadeKey) => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["invoke"]);
  const [days, setDays] = useState("");
  const [budgets, setBudgets] = useState(NO_BUDGETS);
  const { act, busy, problem } = useAction();
  return (
    <form
      className="new-key"
      onSubmit={(event) => {
        event.preventDefault();
        void act(async () => {
          const made = await send<MadeKey>("POST", "/v1/keys", { name, scopes, life_s: Number(days || 0) * 86_400, ...sentBudgets(budgets) });
          setName("");
          setBudgets(NO_BUDGETS);
          onMade(made);
        });
      }}
    >
      <div className="filters">
        <label>
          Name
          <input type="text" name="key-name" value={name} autoComplete="off" onChange={(event) => setName(event.currentTarget.value)} />
        </label>
        <label>
          Days <span className="optional">empty: until it is revoked</span>
          <input type="text" name="key-days" inputMode="numeric" value={days} autoComplete="off" onChange={(event) => setDays(event.currentTarget.value)} />
        </label>
        <fieldset className="scopes">
          <legend>May</legend>
          {SCOPES.map((each) => (
            <label key={each} className="plain-tick">
              <input type="checkbox" checked={scopes.includes(each)} onChange={(event) => setScopes(event.currentTarget.checked ? [...scopes, each] : scopes.filter((other) => other !== each))} /> {each}
            </label>
          ))}
        </fieldset>
      </div>
      <Details summary="Budgets">
        <div className="filters">
          <BudgetFields budgets={budgets} onChange={setBudgets} />
        </div>
      </Details>
      {problem && <ProblemNote problem={problem} />}
      <ActButton type="submit" className="button" isDisabled={!scopes.length} busy={busy}>
        Make a key
      </ActButton>
    </form>
  );
}
