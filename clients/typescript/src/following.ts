/** A run's events as they come, through broken connections and servers that start again; and of them the items that a function streams. */
import { refusal, runError, unexpected } from "./answers.js";
import { EventsLostError } from "./errors.js";
import type { Run, RunEvent } from "./values.js";
import { Lost, type Opened, Tries, type Wire } from "./wire.js";

export const NDJSON = "application/x-ndjson";
export const SILENCE_S = 45; // servers say something each 15 s

interface Told {
  id?: string | number;
  event: string;
  data: unknown;
}

/** The events that come after `opened`, which is an open stream of run `runId`. A stream that breaks is asked for again after the last event. */
export async function* follow(
  wire: Wire,
  runId: string,
  opened: Opened,
  after: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, void, void> {
  const tries = new Tries(wire.patience, { following: true, signal });
  try {
    for (;;) {
      let ended = new Lost("the stream ended before its run did", true);
      if (opened.answer.status === 204) return; // all was seen before
      if (opened.answer.status < 200 || opened.answer.status >= 300) throw refusal(opened.answer);
      if (!(opened.answer.headers.get("content-type") ?? "").startsWith(NDJSON)) throw unexpected(opened.answer, "events as NDJSON");
      try {
        for await (const told of lines(opened)) {
          tries.succeeded();
          const id = String(told.id ?? "");
          after = id || after;
          yield { id, name: told.event, data: told.data };
          if (told.event === "done") return;
        }
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        ended = error;
      }
      opened.close();
      await tries.lost(new Lost(`run ${runId}: ${ended.why}, and it could not be resumed`, true, ended.silent));
      opened = await openEvents(wire, runId, after, signal);
    }
  } finally {
    opened.close();
  }
}

/** The stream of a run's events after one that was seen. */
export function openEvents(wire: Wire, runId: string, after: string, signal: AbortSignal | undefined): Promise<Opened> {
  const headers = { accept: NDJSON, ...(after ? { "last-event-id": after } : {}) };
  return wire.open({ method: "GET", path: `/v1/runs/${encodeURIComponent(runId)}/events`, headers, silenceS: SILENCE_S, signal, following: true });
}

async function* lines(opened: Opened): AsyncGenerator<Told, void, void> {
  const decoder = new TextDecoder();
  let begun: string[] = []; // joined once for a line, not at every piece of it
  for (let piece = await opened.next(); piece !== undefined; piece = await opened.next()) {
    const [head = "", ...rest] = decoder.decode(piece, { stream: true }).split("\n");
    begun.push(head);
    for (const following of rest) {
      const line = begun.join("").trim();
      begun = [following];
      if (line) yield told(line);
    }
  }
}

function told(line: string): Told {
  try {
    const found = JSON.parse(line) as Told;
    if (typeof found.event === "string") return found;
  } catch {
    // said below
  }
  throw new Lost("the stream contains a line that is not an event", true);
}

/**
 * The items among the events; `RunError` at the end where the run did not succeed. What was given is never taken back: where another attempt
 * begins, its items have to repeat the earlier ones, and only those behind them are given.
 */
export async function* items<Item>(events: AsyncGenerator<RunEvent, void, void>): AsyncGenerator<Item, Run | undefined, void> {
  const given: string[] = [];
  let place = 0;
  for await (const event of events) {
    if (event.name === "restart") place = 0;
    else if (event.name === "snapshot") {
      const missed = (event.data as { missed?: number }).missed ?? "some";
      throw new EventsLostError(`${missed} events of this run are no longer kept, possibly including items`, {
        code: "events_lost",
        hint: "read the stream while the run is working, or let the function save its output as a file",
      });
    } else if (event.name === "output") {
      const text = JSON.stringify(event.data);
      const here = place++;
      if (here === given.length) {
        given.push(text);
        yield event.data as Item;
      } else if (given[here] !== text) {
        throw new EventsLostError(`the run was restarted, and its item ${here} is another one now than the one that was given before`, {
          code: "stream_restarted",
          hint: "follow it with events(), where `restart` means that items start over; or run it again",
        });
      }
    } else if (event.name === "done") {
      const run = event.data as Run;
      if (run.status !== "succeeded") throw runError(run);
      return run;
    }
  }
  return undefined;
}
