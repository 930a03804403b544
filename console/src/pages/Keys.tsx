// Keys: who may ask for what, and what was changed by whom.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { currentKey, keepKey, send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Over } from "../ui/Confirm";
import { Block, CopyButton, ProblemNote } from "../ui/parts";
import { Scroll, When } from "../ui/table";
import { useAction } from "../ui/useAction";
import type { Key } from "./shapes";

const SCOPES = ["invoke", "publish", "promote", "admin"];

interface Audit {
  row_id: string;
  at: number;
  actor: string;
  action: string;
  subject: string;
  detail: string;
}

export function Keys() {
  const { data, problem, again } = usePoll<{ data: Key[] }>("/v1/keys", 5000);
  const audit = usePoll<{ data: Audit[] }>("/v1/audit?limit=50", 5000);
  const me = usePoll<{ owner: string; scopes: string[]; name: string }>("/v1/me", 0);
  const [made, setMade] = useState("");
  const [revoking, setRevoking] = useState<Key | null>(null);
  const { act, busy, problem: failed } = useAction();
  return (
    <>
      <h2>Keys</h2>
      {me.data && (
        <p className="hint">
          You are {me.data.name}, owner {me.data.owner}, and may {me.data.scopes.join(", ")}.{" "}
          {currentKey() && (
            <Button className="button small" onPress={() => (keepKey(""), location.reload())}>
              Log out
            </Button>
          )}
        </p>
      )}
      {problem && <ProblemNote problem={problem} />}
      {!problem && (
        <NewKey
          onMade={(text) => {
            setMade(text);
            again();
          }}
        />
      )}
      {data && data.data.length > 0 && (
        <Scroll label="Keys">
          <table>
            <thead>
              <tr>
                <th scope="col">Key</th>
                <th scope="col">Owner</th>
                <th scope="col">Name</th>
                <th scope="col">May</th>
                <th scope="col">Made</th>
                <th scope="col">Holds until</th>
                <th scope="col">
                  <span className="hidden-label">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.data.map((each) => (
                <tr key={each.key_id}>
                  <td>
                    <code>{each.key_id}</code>
                  </td>
                  <td>{each.owner}</td>
                  <td className="wraps">{each.name}</td>
                  <td>{each.scopes.join(", ")}</td>
                  <td>
                    <When at={each.created_at} />
                  </td>
                  <td>{each.revoked_at ? "revoked" : each.expires_at ? <When at={each.expires_at} /> : "revoked by hand"}</td>
                  <td>
                    {!each.revoked_at && (
                      <Button className="button small danger" aria-label={`Revoke ${each.key_id}`} onPress={() => setRevoking(each)}>
                        Revoke
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <h3>Audit</h3>
      {audit.data && (
        <Scroll label="Audit">
          <table>
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">Who</th>
                <th scope="col">What</th>
                <th scope="col">To what</th>
                <th scope="col">Detail</th>
              </tr>
            </thead>
            <tbody>
              {audit.data.data.map((each) => (
                <tr key={each.row_id}>
                  <td>
                    <When at={each.at} />
                  </td>
                  <td>{each.actor}</td>
                  <td>{each.action}</td>
                  <td className="wraps">{each.subject}</td>
                  <td className="wraps">{each.detail}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {made && (
        <Over title="The new key" isOpen onClose={() => setMade("")}>
          <p>It is shown this once. Whoever has it may do what it may.</p>
          <Block label="The new key">{made}</Block>
          <div className="buttons">
            <CopyButton text={made} label="Copy the key" />
            <Button className="button primary" onPress={() => setMade("")}>
              Done
            </Button>
          </div>
        </Over>
      )}
      {revoking && (
        <Over title={`Revoke ${revoking.name || revoking.key_id}?`} isOpen onClose={() => setRevoking(null)}>
          <p>Programs that use it are refused from now on. It cannot be taken back.</p>
          {failed && <ProblemNote problem={failed} />}
          <div className="buttons">
            <ActButton
              className="button danger"
              busy={busy}
              onPress={() =>
                void act(async () => {
                  await send("DELETE", `/v1/keys/${encodeURIComponent(revoking.key_id)}`);
                  setRevoking(null);
                  again();
                  audit.again();
                })
              }
            >
              Revoke
            </ActButton>
            <Button className="button" onPress={() => setRevoking(null)}>
              Keep it
            </Button>
          </div>
        </Over>
      )}
    </>
  );
}

function NewKey({ onMade }: { onMade: (text: string) => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["invoke"]);
  const [days, setDays] = useState("");
  const { act, busy, problem } = useAction();
  return (
    <form
      className="new-key"
      onSubmit={(event) => {
        event.preventDefault();
        void act(async () => {
          const made = await send<{ key: string }>("POST", "/v1/keys", { name, scopes, life_s: Number(days || 0) * 86_400 });
          setName("");
          onMade(made.key);
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
      {problem && <ProblemNote problem={problem} />}
      <ActButton type="submit" className="button" isDisabled={!scopes.length} busy={busy}>
        Make a key
      </ActButton>
    </form>
  );
}
