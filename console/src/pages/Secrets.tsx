// Secrets of an endpoint: their names. Values go in, and never come out.

import { useState } from "react";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { ProblemNote } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";

interface Secret {
  name: string;
  set_at?: number;
  declared: boolean;
}

export function Secrets({ owner, endpoint }: { owner: string; endpoint: string }) {
  const path = `/v1/endpoints/${encodeURIComponent(owner)}/${encodeURIComponent(endpoint)}/secrets`;
  const { data, problem, again } = usePoll<{ data: Secret[]; missing: string[] }>(path, 10_000);
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const { act, busy, problem: failed } = useAction();
  const put = () =>
    act(async () => {
      await send("PUT", `${path}/${encodeURIComponent(name)}`, { value });
      setName("");
      setValue("");
      again();
    });
  return (
    <>
      <h3>Secrets</h3>
      {problem && <ProblemNote problem={problem} />}
      {data && data.missing.length > 0 && <p className="wrong">Functions ask for these, and they are not set: {data.missing.join(", ")}</p>}
      <ul className="changes">
        {(data?.data ?? []).map((each) => (
          <li key={each.name}>
            <code>{each.name}</code> {each.set_at ? <When at={each.set_at} /> : null} {!each.declared && <span className="optional">no function asks for it</span>}{" "}
            <ActButton
              className="button small danger"
              aria-label={`Remove the secret ${each.name}`}
              busy={busy}
              onPress={() =>
                void act(async () => {
                  await send("DELETE", `${path}/${encodeURIComponent(each.name)}`);
                  again();
                })
              }
            >
              Remove
            </ActButton>
          </li>
        ))}
      </ul>
      {!problem && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void put();
          }}
        >
          <div className="filters">
            <label>
              Name
              <input type="text" name="secret-name" value={name} autoComplete="off" spellCheck={false} onChange={(event) => setName(event.currentTarget.value.trim())} />
            </label>
            <label>
              Value
              <input type="password" name="secret-value" value={value} autoComplete="new-password" onChange={(event) => setValue(event.currentTarget.value)} />
            </label>
          </div>
          {failed && <ProblemNote problem={failed} />}
          <ActButton type="submit" className="button" isDisabled={!name || !value} busy={busy}>
            Set the secret
          </ActButton>
        </form>
      )}
    </>
  );
}
