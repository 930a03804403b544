// Endpoints: which release callers get by each tag, and all releases there are.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { go, linkTo } from "../place";
import { usePoll } from "../server/usePoll";
import { ProblemNote } from "../ui/parts";
import { Scroll, When } from "../ui/table";
import { MoveTag } from "./MoveTag";
import { Secrets } from "./Secrets";
import type { Release, Tag } from "./shapes";

export function Endpoints() {
  const { data, problem, again } = usePoll<{ data: Release[] }>("/v1/releases", 5000);
  const endpoints = new Map<string, Release[]>();
  for (const each of data?.data ?? []) {
    const name = `${each.owner}/${each.endpoint}`;
    endpoints.set(name, [...(endpoints.get(name) ?? []), each]);
  }
  return (
    <>
      <h2>Endpoints</h2>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {data && endpoints.size === 0 && <p className="hint">There are none yet. Publish one with: cozyctl publish</p>}
      <Scroll label="Endpoints">
        <table>
          <thead>
            <tr>
              <th scope="col">Endpoint</th>
              <th scope="col">Releases</th>
              <th scope="col">Functions</th>
              <th scope="col">Newest</th>
            </tr>
          </thead>
          <tbody>
            {[...endpoints].map(([name, releases]) => (
              <tr key={name}>
                <td>
                  <a href={linkTo("endpoints", name)}>{name}</a>
                </td>
                <td className="figure">{releases.length}</td>
                <td className="wraps">{short(releases[0]?.functions ?? [])}</td>
                <td>
                  <When at={releases[0]?.created_at} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

export function Endpoint({ name }: { name: string }) {
  const [owner = "", endpoint = ""] = name.split("/");
  const query = `owner=${encodeURIComponent(owner)}&endpoint=${encodeURIComponent(endpoint)}`;
  const releases = usePoll<{ data: Release[] }>(`/v1/releases?${query}`, 4000);
  const tags = usePoll<{ data: Tag[] }>(`/v1/tags?${query}`, 2000);
  const [moving, setMoving] = useState<Tag | null>(null);
  const [chosen, setChosen] = useState<string[]>([]);
  const problem = releases.problem ?? tags.problem;
  const all = releases.data?.data ?? [];
  const messageOf = new Map(all.map((each) => [each.release_id, each.message]));
  return (
    <>
      <p>
        <a href={linkTo("endpoints")}>All endpoints</a>
      </p>
      <h2>{name}</h2>
      {problem && <ProblemNote problem={problem} />}
      <h3>Tags</h3>
      <Scroll label="Tags">
        <table>
          <thead>
            <tr>
              <th scope="col">Function</th>
              <th scope="col">Tag</th>
              <th scope="col">Release</th>
              <th scope="col">Moved</th>
              <th scope="col">Canary</th>
              <th scope="col">
                <span className="hidden-label">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {(tags.data?.data ?? []).map((each) => (
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
                <td>{each.candidate ? `${each.candidate.percent} % to ${each.candidate.release_id}` : ""}</td>
                <td>
                  <Button className="button small" aria-label={`Promote or roll back ${each.function}:${each.tag}`} onPress={() => setMoving(each)}>
                    Promote or roll back
                  </Button>
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
      <Secrets owner={owner} endpoint={endpoint} />
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

function short(words: string[]): string {
  return words.length > 8 ? `${words.slice(0, 8).join(", ")} and ${words.length - 8} more` : words.join(", ");
}
