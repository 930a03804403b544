// What a run said while it worked: read from its kept events, and followed while it goes on.

import { useEffect, useState } from "react";
import { isObject } from "../schema/shape";
import type { RunObject } from "../run/run";
import { lineOf, previewIn, type Preview } from "../run/preview";
import { PreviewFigure } from "../run/RunPanel";
import { Trouble } from "../server/api";
import { followRun } from "../server/events";
import { Block, Details } from "../ui/parts";

const MAX_LINES = 5000;

export function EventLog({ run, isOver }: { run: RunObject; isOver: boolean }) {
  const [lines, setLines] = useState<{ logs: string[]; events: string[]; preview: Preview | null }>({ logs: [], events: [], preview: null });
  const id = run.id;
  useEffect(() => {
    const stop = new AbortController();
    const logs: string[] = [];
    const events: string[] = [];
    let preview: Preview | null = null;
    let timer = 0;
    const tell = () => {
      timer = 0;
      setLines({ logs: logs.slice(-MAX_LINES), events: events.slice(-MAX_LINES), preview });
    };
    async function read(): Promise<void> {
      for await (const { name, data } of followRun(id, stop.signal)) {
        if (name === "done") break;
        if (name === "log" && isObject(data)) logs.push(`${data.level && data.level !== "info" ? `${String(data.level)}: ` : ""}${String(data.message)}`);
        events.push(lineOf(name, data));
        if (name === "custom" && isObject(data)) preview = previewIn(data) ?? preview;
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
      {!isOver && lines.preview && <PreviewFigure preview={lines.preview} />}
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
