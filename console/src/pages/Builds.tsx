// Builds: what was published, how it was built, and what the build wrote.

import { linkTo } from "../place";
import { send } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { Block, ProblemNote } from "../ui/parts";
import { Head, Scroll, Took, When } from "../ui/table";
import { useAction } from "../ui/useAction";
import type { Build } from "./shapes";
import { useLog } from "./Workers";

export function Builds() {
  const { data, problem, again } = usePoll<{ data: Build[] }>("/v1/builds", 3000);
  return (
    <>
      <h2>Builds</h2>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {data && data.data.length === 0 && <p className="hint">Nothing was published yet. Publish a folder with: cozyctl publish</p>}
      {data && data.data.length > 0 && (
        <Scroll label="Builds">
          <table>
            <Head columns={["Build", "Status", "Endpoint", "Message", "Began", "Took", "Release"]} />
            <tbody>
              {data.data.map((each) => (
                <tr key={each.build_id}>
                  <td>
                    <a href={linkTo("builds", each.build_id)}>{each.build_id}</a>
                  </td>
                  <td>
                    <span className={`badge ${each.status}`}>{each.status}</span>
                  </td>
                  <td>{each.endpoint}</td>
                  <td className="wraps">{each.message}</td>
                  <td>
                    <When at={each.created_at} />
                  </td>
                  <td>
                    <Took ms={each.finished_at ? (each.finished_at - each.created_at) * 1000 : null} />
                  </td>
                  <td>{each.release_id && <a href={linkTo("releases", each.release_id)}>{each.release_id}</a>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}

interface BuildLog {
  status: string;
  lines: { text: string }[];
  next: number;
}

export function BuildPage({ id }: { id: string }) {
  const { data: build, problem, again } = usePoll<Build>(`/v1/builds/${encodeURIComponent(id)}`, 2000);
  const log = useLog(`/v1/builds/${encodeURIComponent(id)}/logs`, (found: BuildLog) => found.lines.map((each) => each.text), "queued running");
  const cancel = useAction();
  if (!build) return problem ? <ProblemNote problem={problem} retry={again} /> : <p className="hint">Reading the build…</p>;
  const goesOn = build.status === "queued" || build.status === "running";
  return (
    <>
      <p>
        <a href={linkTo("builds")}>All builds</a>
      </p>
      <h2>{build.build_id}</h2>
      <p className="facts">
        <span className={`badge ${build.status}`}>{build.status}</span> {build.endpoint} {build.message} <When at={build.created_at} />
        {build.release_id && <a href={linkTo("releases", build.release_id)}>{build.release_id}</a>}
      </p>
      {build.error && <ProblemNote problem={{ detail: build.error }} />}
      {goesOn && (
        <div className="buttons">
          <ActButton className="button danger" busy={cancel.busy} onPress={() => void cancel.act(async () => void (await send("POST", `/v1/builds/${encodeURIComponent(id)}/cancel`)))}>
            Cancel
          </ActButton>
        </div>
      )}
      {cancel.problem && <ProblemNote problem={cancel.problem} />}
      <h3>Log</h3>
      {log.problem && <p className="hint">{log.problem}</p>}
      <Block follow label="Log of the build">
        {log.lines.join("\n")}
      </Block>
    </>
  );
}
