// What the server serves now, kept fresh while the page is looked at.

import { useCallback, useEffect, useRef, useState } from "react";
import { get, IS_PLATFORM, Trouble, type Problem } from "./api";
import { readCatalogue, type Catalogue } from "./functions";

export interface ServerState {
  catalogue: Catalogue | null;
  /** Why the server cannot be read now. */
  trouble: Problem | null;
  /** Whether a key is asked for. */
  needsKey: boolean;
  /** Why the author's code, as it is now, is not served. */
  codeProblem: string;
  retry: () => void;
}

interface Now {
  revision: string;
  problem: string;
  /** How long the process has served: one that began later counts its revisions anew. */
  uptimeS: number;
}

interface DevStatus {
  code: { problem: string | null; revision: number };
  uptime_s: number;
}

const EVERY_MS = IS_PLATFORM ? 4000 : 700;
const DOWN_MS = 1500;

async function revisionNow(signal: AbortSignal): Promise<Now> {
  if (IS_PLATFORM) {
    const { data } = await get<{ data: { owner: string; endpoint: string; function: string; tag: string; release_id: string }[] }>("/v1/tags", signal);
    return { revision: data.map((each) => `${each.owner}/${each.endpoint}/${each.function}:${each.tag}@${each.release_id}`).join("\n"), problem: "", uptimeS: 0 };
  }
  const { code, uptime_s } = await get<DevStatus>("/v1/status", signal);
  return { revision: String(code.revision), problem: code.problem ?? "", uptimeS: uptime_s };
}

export function useServer(): ServerState {
  const [catalogue, setCatalogue] = useState<Catalogue | null>(null);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  const [codeProblem, setCodeProblem] = useState("");
  const [needsKey, setNeedsKey] = useState(false);
  const look = useRef<() => void>(() => undefined);

  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    let seen: string | null = null;
    let uptimeS = 0;
    let looking = false;

    async function lookNow(): Promise<void> {
      if (looking) return;
      looking = true;
      clearTimeout(timer);
      let next: number | null = EVERY_MS;
      try {
        const now = await revisionNow(stop.signal);
        if (now.revision !== seen || now.uptimeS < uptimeS) {
          setCatalogue(await readCatalogue(stop.signal));
          seen = now.revision;
        }
        uptimeS = now.uptimeS;
        setCodeProblem(now.problem);
        setTrouble(null);
        setNeedsKey(false);
      } catch (error) {
        if (stop.signal.aborted) return;
        if (!(error instanceof Trouble)) throw error;
        if (error.problem.status === 401) {
          setNeedsKey(true);
          setTrouble(error.problem);
          next = null; // until somebody gives a key
          return;
        }
        setTrouble(error.problem);
        next = DOWN_MS;
        seen = null; // another server may stand there when it answers again
      } finally {
        looking = false;
        if (!stop.signal.aborted && next !== null) timer = window.setTimeout(() => (document.hidden ? wait() : void lookNow()), next);
      }
    }
    function wait(): void {
      timer = window.setTimeout(() => (document.hidden ? wait() : void lookNow()), EVERY_MS);
    }
    const shown = () => {
      if (!document.hidden) void lookNow();
    };
    look.current = () => {
      seen = null;
      void lookNow();
    };
    document.addEventListener("visibilitychange", shown);
    void lookNow();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, []);

  const retry = useCallback(() => look.current(), []);
  return { catalogue, trouble, needsKey, codeProblem, retry };
}
