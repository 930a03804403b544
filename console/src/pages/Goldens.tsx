// Golden requests of an endpoint: runs that were right, whose output every later release has to give.

import { linkTo } from "../place";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { ProblemNote } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";
import type { Golden } from "./shapes";

export function Goldens({ query }: { query: string }) {
  const { data, problem, again } = usePoll<{ data: Golden[] }>(`/v1/goldens?${query}`, 4000);
  const { act, busy, problem: failed } = useAction();
  return (
    <>
      <h3>Golden requests</h3>
      {(problem ?? failed) && <ProblemNote problem={(problem ?? failed)!} />}
      {data && data.data.length === 0 && <p className="hint">There are none. A run that was right becomes one on its page; before a tag moves to a release, the release has to give the same.</p>}
      <ul className="changes">
        {(data?.data ?? []).map((each) => (
          <li key={each.golden_id}>
            {each.function} <code>{each.golden_id}</code> of <a href={linkTo("runs", each.run_id)}>its run</a> {each.tolerance > 0 && `, numbers may be ${each.tolerance * 100} % apart `}
            <span className="optional">
              <When at={each.created_at} />
            </span>{" "}
            <ActButton
              className="button small danger"
              aria-label={`Forget the golden request ${each.golden_id}`}
              busy={busy}
              onPress={() =>
                void act(async () => {
                  await send("DELETE", `/v1/goldens/${encodeURIComponent(each.golden_id)}`);
                  again();
                })
              }
            >
              Forget
            </ActButton>
          </li>
        ))}
      </ul>
    </>
  );
}
