// One release: its functions, where it is used, and what its gates found.

import { linkTo } from "../place";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Block, Details, pretty, ProblemNote } from "../ui/parts";
import { When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { Gates } from "./Gates";
import type { GateResult, Release } from "./shapes";

export function ReleasePage({ id }: { id: string }) {
  const { data: release, problem, again } = usePoll<Release & { manifest: unknown }>(`/v1/releases/${encodeURIComponent(id)}`, 5000);
  const gates = usePoll<{ data: GateResult[] }>(`/v1/releases/${encodeURIComponent(id)}/gates`, 5000);
  const run = useAction();
  if (!release) return problem ? <ProblemNote problem={problem} retry={again} /> : <p className="hint">Reading the release…</p>;
  const name = `${release.owner}/${release.endpoint}`;
  return (
    <>
      <p>
        <a href={linkTo("endpoints", name)}>{name}</a>
      </p>
      <h2>{release.release_id}</h2>
      <p className="description">
        {release.message} <When at={release.created_at} />
      </p>
      <h3>Functions</h3>
      <ul className="wrapped">
        {release.functions.map((each) => (
          <li key={each}>
            {each}{" "}
            {release.tags
              .filter((tag) => tag.startsWith(`${each}:`))
              .map((tag) => (
                <a key={tag} className="tag" href={linkTo("run", `${name}/${tag.endsWith(":prod") ? each : tag}`)}>
                  {tag.slice(each.length + 1)}
                </a>
              ))}
          </li>
        ))}
      </ul>
      <h3>Gates</h3>
      <Gates results={gates.data?.data ?? []} />
      <div className="buttons">
        <ActButton
          className="button"
          busy={run.busy}
          onPress={() =>
            void run.act(async () => {
              await send("POST", `/v1/releases/${id}/goldens`, {});
              gates.again();
            })
          }
        >
          {run.busy ? "Running the golden requests…" : "Run the golden requests"}
        </ActButton>
      </div>
      {run.problem && <ProblemNote problem={run.problem} />}
      <Details summary="Manifest">
        <Block label="Manifest">{pretty(release.manifest)}</Block>
      </Details>
    </>
  );
}
