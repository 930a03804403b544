// All endpoints.

import { linkTo } from "../place";
import { usePoll } from "../server/usePoll";
import { ProblemNote } from "../ui/parts";
import { Head, Scroll, When } from "../ui/table";
import type { Release } from "./shapes";

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
          <Head columns={["Endpoint", "Releases", "Functions", "Newest"]} />
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

export function short(words: string[]): string {
  return words.length > 8 ? `${words.slice(0, 8).join(", ")} and ${words.length - 8} more` : words.join(", ");
}
