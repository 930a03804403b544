// What a run said while it worked: read from its kept events, and followed while it goes on.

import { useEffect, useState } from "react";
import { isObject } from "../schema/shape";
import type { RunObject } from "../run/run";
import { Trouble } from "../server/api";
import { followRun } from "../server/events";
import { Block, Details } from "../ui/parts";

const MAX_LINES = 5000;

export function EventLog({ run, isOver }: { run: RunObject; isOver: boolean }) {
  const [lines, setLines] = useState<{ logs: string[]; events: string[] }>({ logs: [], events: [] });
  const id = run.id;
  useEffect(() => {
    const stop = new AbortController();
    const logs: string[] = [];
    const events: string[] = [];
    let timer = 0;
    const tell = () => {
      timer = 0;
      setLines({ logs: logs.slice(-MAX_LINES), events: events.slice(-MAX_LINES) });
    };
    async function read(): Promise<void> {
      for await (const { name, data } of followRun(id, stop.signal)) {
        if (name === "done") break;
        if (name === "log" && isObject(data)) logs.push(`${data.level && data.level !== "info" ? `${String(data.level)}: ` : ""}${String(data.message)}`);
        events.push(`${name} ${JSON.stringify(data)}`.slice(0, 2000));
        timer ||= window.setTimeout(tell, 100);
      }
      tell();
    }
    read().catch((error: Error) => {
      if (!stop.signal.aborted) events.push(error instanceof Trouble ? error.message : String(error));
      tell();
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return (
    <>
      <section>
        <h3>Log</h3>
        {lines.logs.length ? (
          <Block follow label="Log lines">
            {lines.logs.join("\n")}
          </Block>
        ) : (
          <p className="hint">{isOver ? "It logged nothing." : "Nothing yet."}</p>
        )}
      </section>
      {lines.events.length > 0 && (
        <Details summary={`Events (${lines.events.length})`}>
          <Block follow label="Events">
            {lines.events.join("\n")}
          </Block>
        </Details>
      )}
    </>
  );
}
