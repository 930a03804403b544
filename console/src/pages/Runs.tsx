// All runs that the server knows, newest first.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { linkTo } from "../place";
import type { RunObject } from "../run/run";
import { isObject } from "../schema/shape";
import { get, IS_PLATFORM, Trouble, type Problem } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ProblemNote } from "../ui/parts";
import { Head, Scroll, Took, When } from "../ui/table";

interface Page {
  data: RunObject[];
  next_cursor: string | null;
}

const STATUSES = IS_PLATFORM ? ["queued", "starting", "running", "succeeded", "failed", "canceled", "expired"] : ["queued", "running", "succeeded", "failed", "canceled"];

export function refOf(run: RunObject): string {
  return run.owner ? `${run.owner}/${run.endpoint}/${run.function}:${run.tag}` : run.function;
}

export function Runs() {
  const [status, setStatus] = useState("");
  const [fn, setFn] = useState("");
  const query = new URLSearchParams({ ...(status ? { status } : {}), ...(fn ? { function: fn } : {}) }).toString();
  const path = `/v1/runs${query ? `?${query}` : ""}`;
  const { data, problem } = usePoll<Page>(path, 2000);
  const [older, setOlder] = useState<{ path: string; data: RunObject[]; cursor: string | null } | null>(null);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  const more = older?.path === path ? older : null;
  const cursor = more ? more.cursor : data?.next_cursor;
  const fresh = data?.data ?? [];
  const known = new Set(fresh.map((each) => each.id));
  const rows = [...fresh, ...(more?.data ?? []).filter((each) => !known.has(each.id))];

  async function load(): Promise<void> {
    try {
      const found = await get<Page>(`${path}${query ? "&" : "?"}cursor=${encodeURIComponent(cursor ?? "")}`);
      // What has moved down since is kept: the first page goes on to change.
      setOlder({ path, data: [...rows, ...found.data], cursor: found.next_cursor });
      setTrouble(null);
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      setTrouble(error.problem);
    }
  }

  return (
    <section>
      <h2 id="page-name">Runs</h2>
      <div className="filters">
        <label>
          Status
          <select value={status} onChange={(event) => setStatus(event.currentTarget.value)}>
            <option value="">all</option>
            {STATUSES.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <label>
          Function
          <input type="text" value={fn} autoComplete="off" spellCheck={false} onChange={(event) => setFn(event.currentTarget.value.trim())} placeholder="all" />
        </label>
      </div>
      {(problem ?? trouble) && <ProblemNote problem={(problem ?? trouble) as Problem} />}
      <Scroll label="Runs">
        <table>
          <Head columns={["Run", "Status", "Function", "Began", "Took", "Why"]} />
          <tbody>
            {rows.map((run) => (
              <tr key={run.id}>
                <td>
                  <a href={linkTo("runs", run.id)}>
                    <code>{run.id.slice(0, 18)}</code>
                  </a>
                </td>
                <td>
                  <span className={`badge ${run.status}`}>{run.status}</span>
                  {(run.attempt ?? 1) > 1 && ` attempt ${run.attempt}`}
                </td>
                <td>{refOf(run)}</td>
                <td>
                  <When at={run.created_at} />
                </td>
                <td>
                  <Took ms={run.timings?.total_ms} />
                </td>
                <td>{whyOf(run)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {data && rows.length === 0 && <p className="hint">There are no {status} runs{fn ? ` of ${fn}` : ""} yet.</p>}
      {cursor && (
        <Button className="button" onPress={() => void load()}>
          Older runs
        </Button>
      )}
    </section>
  );
}

function whyOf(run: RunObject): string {
  if (run.error) return run.error.code ?? run.error.title ?? "";
  return isObject(run.routing) && typeof run.routing.reason === "string" ? run.routing.reason.replaceAll("_", " ") : "";
}
