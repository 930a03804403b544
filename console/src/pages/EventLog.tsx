// What a run said while it worked: read from its kept events, and followed while it goes on.

import { useEffect, useState } from "react";
import { isObject } from "../schema/shape";
import type { Json } from "../schema/resolve";
import { lineOf, previewIn, type Preview } from "../run/preview";
import { Trouble } from "../server/api";
import { followRun } from "../server/events";
import { Block, Details } from "../ui/parts";

const MAX_LINES = 5000;

export interface Said {
  logs: string[];
  events: string[];
  preview: Preview | null;
  /** What a stream gave: as one text where its pieces are text, else a line of JSON each. */
  stream: string;
}

const NOTHING: Said = { logs: [], events: [], preview: null, stream: "" };

export function useSaid(id: string): Said {
  const [said, setSaid] = useState(NOTHING);
  useEffect(() => {
    const stop = new AbortController();
    let logs: string[] = [];
    let events: string[] = [];
    let items: Json[] = [];
    let preview: Preview | null = null;
    let timer = 0;
    const tell = () => {
      timer = 0;
      logs = logs.slice(-MAX_LINES);
      events = events.slice(-MAX_LINES);
      setSaid({ logs, events, preview, stream: streamOf(items) });
    };
    async function read(): Promise<void> {
      for await (const { name, data } of followRun(id, stop.signal)) {
        if (name === "done") break;
        if (name === "log" && isObject(data)) logs.push(`${data.level && data.level !== "info" ? `${String(data.level)}: ` : ""}${String(data.message)}`);
        if (name === "output") items.push(data as Json);
        if (name === "restart") items = [];
        if (name === "custom" && isObject(data)) preview = previewIn(data) ?? preview;
        events.push(lineOf(name, data));
        timer ||= window.setTimeout(tell, 100);
      }
      tell();
    }
    read().catch((error: Error) => {
      if (stop.signal.aborted) return;
      events.push(error instanceof Trouble ? error.message : String(error));
      tell();
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return said;
}

/** Pieces that are texts, or objects with one and the same text in each, are one text. */
function streamOf(items: Json[]): string {
  const first = items[0];
  const field = isObject(first) && Object.keys(first).length === 1 ? Object.keys(first)[0] : undefined;
  const pieces = items.map((each) => (typeof each === "string" ? each : field !== undefined && isObject(each) ? each[field] : undefined));
  if (pieces.every((each): each is string => typeof each === "string")) return pieces.join("");
  return items.map((each) => JSON.stringify(each)).join("\n");
}

export function EventLog({ said, isOver }: { said: Said; isOver: boolean }) {
  return (
    <>
      <section>
        <h3>Log</h3>
        {said.logs.length ? (
          <Block follow label="Log lines">
            {said.logs.join("\n")}
          </Block>
        ) : (
          <p className="hint">{isOver ? "It logged nothing." : "Nothing yet."}</p>
        )}
      </section>
      {said.events.length > 0 && (
        <Details summary={`Events (${said.events.length})`}>
          <Block follow label="Events">
            {said.events.join("\n")}
          </Block>
        </Details>
      )}
    </>
  );
}
