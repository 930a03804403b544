// Keys: who may ask for what, and what was changed by whom.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { currentKey, keepKey, send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Over } from "../ui/Confirm";
import { Block, CopyButton, ProblemNote } from "../ui/parts";
import { Head, Scroll, When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { BudgetsOf, ChangeBudgets } from "./Budgets";
import { NewKey } from "./NewKey";
import type { Key, MadeKey } from "./shapes";

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
  const me = usePoll<Pick<Key, "owner" | "scopes" | "name" | "budgets" | "used">>("/v1/me", 0);
  const [made, setMade] = useState<MadeKey | null>(null);
  const [bounding, setBounding] = useState<Key | null>(null);
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
      {me.data?.budgets && (
        <p className="hint">
          <BudgetsOf owner={me.data} />
        </p>
      )}
      {problem && <ProblemNote problem={problem} />}
      {!problem && (
        <NewKey
          onMade={(key) => {
            setMade(key);
            again();
          }}
        />
      )}
      {data && data.data.length > 0 && (
        <Scroll label="Keys">
          <table>
            <Head columns={["Key", "Owner", "Name", "May", "Budgets, used", "Made", "Holds until"]} actions />
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
                    <BudgetsOf owner={each} />
                  </td>
                  <td>
                    <When at={each.created_at} />
                  </td>
                  <td>{each.revoked_at ? "revoked" : each.expires_at ? <When at={each.expires_at} /> : "revoked by hand"}</td>
                  <td>
                    {!each.revoked_at && (
                      <div className="row">
                        <Button className="button small" aria-label={`Budgets of ${each.key_id}`} onPress={() => setBounding(each)}>
                          Budgets
                        </Button>
                        <Button className="button small danger" aria-label={`Revoke ${each.key_id}`} onPress={() => setRevoking(each)}>
                          Revoke
                        </Button>
                      </div>
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
            <Head columns={["When", "Who", "What", "To what", "Detail"]} />
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
        <Over title="The new key" isOpen onClose={() => setMade(null)}>
          <p>It is shown this once. Whoever has it may do what it may.</p>
          {made.enforced === false && <p className="wrong">This platform asks nobody for keys now: without one everybody may do everything, and budgets bound nobody.</p>}
          <Block label="The new key">{made.key}</Block>
          <div className="buttons">
            <CopyButton text={made.key} label="Copy the key" />
            <Button className="button primary" onPress={() => setMade(null)}>
              Done
            </Button>
          </div>
        </Over>
      )}
      {bounding && (
        <ChangeBudgets
          of={bounding}
          onClose={(changed) => {
            setBounding(null);
            if (changed) again();
          }}
        />
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
