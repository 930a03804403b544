// What was told of a run to a webhook, and what came of each try.

import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { duration, ProblemNote } from "../ui/parts";
import { Head, Scroll, When } from "../ui/table";
import { useAction } from "../ui/useAction";

interface Delivery {
  id: string;
  event: string;
  url: string;
  state: "pending" | "delivered" | "failed" | "unwanted";
  created_at: string;
  next_try_at?: string | null;
  tries: { at: string; took_ms: number; status: number | null; error: string | null }[];
}

const BADGES: Record<Delivery["state"], string> = { pending: "", delivered: "succeeded", failed: "failed", unwanted: "canceled" };

/** Nothing where nobody is told. */
export function Deliveries({ runId }: { runId: string }) {
  const path = `/v1/runs/${encodeURIComponent(runId)}/webhooks`;
  const { data, again } = usePoll<{ data: Delivery[] }>(path, 3000);
  const { act, busy, problem } = useAction();
  if (!data?.data.length) return null;
  return (
    <section>
      <h3>Webhooks</h3>
      {problem && <ProblemNote problem={problem} />}
      <Scroll label="Webhooks">
        <table>
          <Head columns={["Event", "State", "To", "Tries"]} actions />
          <tbody>
            {data.data.map((each) => (
              <tr key={each.id}>
                <td>{each.event}</td>
                <td>
                  <span className={`badge ${BADGES[each.state]}`}>{each.state}</span>
                </td>
                <td className="wraps">{each.url}</td>
                <td className="wraps">
                  {each.tries.map((attempt, index) => (
                    <div key={index}>
                      <When at={attempt.at} /> {attempt.status ?? attempt.error} <span className="optional">{duration(attempt.took_ms)}</span>
                    </div>
                  ))}
                  {each.next_try_at && (
                    <div className="optional">
                      next <When at={each.next_try_at} />
                    </div>
                  )}
                </td>
                <td>
                  {each.state !== "pending" && (
                    <ActButton
                      className="button small"
                      aria-label={`Deliver again: ${each.event}`}
                      busy={busy}
                      onPress={() =>
                        void act(async () => {
                          await send("POST", `${path}/${encodeURIComponent(each.id)}/redeliver`);
                          again();
                        })
                      }
                    >
                      Deliver again
                    </ActButton>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
