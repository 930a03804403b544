// One endpoint: which release callers get by each tag, what is tried beside it, and all releases there are.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { go, linkTo } from "../place";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { ProblemNote } from "../ui/parts";
import { Head, Scroll, When } from "../ui/table";
import { useAction } from "../ui/useAction";
import { short } from "./Endpoints";
import { Goldens } from "./Goldens";
import { MoveTag, tagPath } from "./MoveTag";
import { Secrets } from "./Secrets";
import { Shadows, StartShadow } from "./Shadows";
import type { Release, Shadow, Status, Tag } from "./shapes";

export function Endpoint({ name }: { name: string }) {
  const [owner = "", endpoint = ""] = name.split("/");
  const query = `owner=${encodeURIComponent(owner)}&endpoint=${encodeURIComponent(endpoint)}`;
  const releases = usePoll<{ data: Release[] }>(`/v1/releases?${query}`, 4000);
  const tags = usePoll<{ data: Tag[] }>(`/v1/tags?${query}`, 2000);
  const shadows = usePoll<{ data: Shadow[] }>(`/v1/shadows?${query}`, 2000);
  const status = usePoll<Status>("/v1/status", 2000);
  const canary = useAction();
  const [moving, setMoving] = useState<Tag | null>(null);
  const [copying, setCopying] = useState<Tag | null>(null);
  const [chosen, setChosen] = useState<string[]>([]);
  const [filter, setFilter] = useState("");
  const allTags = tags.data?.data ?? [];
  const many = allTags.length > 12;
  const problem = releases.problem ?? tags.problem;
  const all = releases.data?.data ?? [];
  const endCanary = (tag: Tag) =>
    canary.act(async () => {
      await send("PUT", tagPath(tag), { release_id: tag.candidate?.release_id, canary: 0, breaking: true });
      tags.again();
    });
  const messageOf = new Map(all.map((each) => [each.release_id, each.message]));
  return (
    <>
      <p>
        <a href={linkTo("endpoints")}>All endpoints</a>
      </p>
      <h2>{name}</h2>
      {problem && <ProblemNote problem={problem} />}
      {canary.problem && <ProblemNote problem={canary.problem} />}
      <Shadows of={shadows} />
      <h3>Tags</h3>
      {many && (
        <div className="filters">
          <label>
            Function
            <input type="text" value={filter} autoComplete="off" spellCheck={false} onChange={(event) => setFilter(event.currentTarget.value.trim())} placeholder="all" />
          </label>
        </div>
      )}
      <Scroll label="Tags">
        <table>
          <Head columns={["Function", "Tag", "Release", "Moved", "Canary"]} actions />
          <tbody>
            {allTags
              .filter((each) => each.function.includes(filter))
              .map((each) => (
              <tr key={`${each.function}:${each.tag}`}>
                <td>
                  <a href={linkTo("run", `${name}/${each.function}${each.tag === "prod" ? "" : `:${each.tag}`}`)}>{each.function}</a>
                </td>
                <td>{each.tag}</td>
                <td>
                  <a href={linkTo("releases", each.release_id)}>{each.release_id}</a> <span className="optional">{messageOf.get(each.release_id)}</span>
                </td>
                <td>
                  <When at={each.moved_at} />
                </td>
                <td>
                  {each.candidate ? (
                    <>
                      <span className="figure">{each.candidate.percent} %</span> to <a href={linkTo("releases", each.candidate.release_id)}>{each.candidate.release_id}</a>{" "}
                      <ActButton className="button small" aria-label={`End the canary of ${each.function}:${each.tag}`} busy={canary.busy} onPress={() => void endCanary(each)}>
                        End
                      </ActButton>
                    </>
                  ) : (
                    <span className="wrong">{status.data?.dropped?.[`${name}/${each.function}:${each.tag}`]}</span>
                  )}
                </td>
                <td>
                  <div className="row">
                    <Button className="button small" aria-label={`Promote or roll back ${each.function}:${each.tag}`} onPress={() => setMoving(each)}>
                      Promote or roll back
                    </Button>
                    <Button className="button small" aria-label={`Start shadow runs of ${each.function}:${each.tag}`} onPress={() => setCopying(each)}>
                      Shadow runs
                    </Button>
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <h3>Releases</h3>
      <Scroll label="Releases">
        <table>
          <thead>
            <tr>
              <th scope="col">
                <span className="hidden-label">Compare</span>
              </th>
              <th scope="col">Release</th>
              <th scope="col">Message</th>
              <th scope="col">Made</th>
              <th scope="col">Tags</th>
            </tr>
          </thead>
          <tbody>
            {all.map((each) => (
              <tr key={each.release_id}>
                <td>
                  <input
                    type="checkbox"
                    aria-label={`Compare ${each.release_id}`}
                    checked={chosen.includes(each.release_id)}
                    onChange={(event) => setChosen(event.currentTarget.checked ? [...chosen, each.release_id].slice(-2) : chosen.filter((id) => id !== each.release_id))}
                  />
                </td>
                <td>
                  <a href={linkTo("releases", each.release_id)}>{each.release_id}</a>
                </td>
                <td className="wraps">{each.message}</td>
                <td>
                  <When at={each.created_at} />
                </td>
                <td className="wraps">{short(each.tags)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <Button
        className="button"
        isDisabled={chosen.length !== 2}
        onPress={() => {
          // Older first: what changes for callers when a tag moves on.
          const sorted = all.filter((each) => chosen.includes(each.release_id)).sort((a, b) => a.created_at - b.created_at);
          go("compare", `releases/${sorted.map((each) => each.release_id).join("/")}`);
        }}
      >
        Compare two releases
      </Button>
      <Goldens query={query} />
      <Secrets owner={owner} endpoint={endpoint} />
      {copying && (
        <StartShadow
          tag={copying}
          releases={all.filter((each) => each.functions.includes(copying.function))}
          onClose={(began) => {
            setCopying(null);
            if (began) shadows.again();
          }}
        />
      )}
      {moving && (
        <MoveTag
          tag={moving}
          releases={all.filter((each) => each.functions.includes(moving.function))}
          onClose={(moved) => {
            setMoving(null);
            if (moved) {
              tags.again();
              releases.again();
            }
          }}
        />
      )}
    </>
  );
}

