// A resource of the server, read again and again while the page is looked at.

import { useCallback, useEffect, useRef, useState } from "react";
import { get, Trouble, type Problem } from "./api";

export interface Polled<T> {
  data: T | null;
  problem: Problem | null;
  /** Read it now. */
  again: () => void;
}

/** `everyMs` 0: once. Nothing is read while `path` is empty. */
export function usePoll<T>(path: string, everyMs: number): Polled<T> {
  const [state, setState] = useState<{ path: string; data: T | null; problem: Problem | null }>({ path: "", data: null, problem: null });
  const look = useRef<() => void>(() => undefined);
  useEffect(() => {
    if (!path) return;
    const stop = new AbortController();
    let timer = 0;
    async function read(): Promise<void> {
      clearTimeout(timer);
      try {
        const data = await get<T>(path, stop.signal);
        setState({ path, data, problem: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        if (!(error instanceof Trouble)) throw error;
        const { problem } = error;
        setState((before) => ({ path, data: before.path === path ? before.data : null, problem }));
      }
      if (everyMs && !stop.signal.aborted) timer = window.setTimeout(rest, everyMs);
    }
    function rest(): void {
      if (document.hidden) timer = window.setTimeout(rest, everyMs);
      else void read();
    }
    look.current = () => void read();
    void read();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs]);
  const again = useCallback(() => look.current(), []);
  const isOfPath = state.path === path;
  return { data: isOfPath ? state.data : null, problem: isOfPath ? state.problem : null, again };
}
