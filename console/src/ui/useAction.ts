// Something that somebody does: whether it goes on, and why it failed.

import { useCallback, useState } from "react";
import { Trouble, type Problem } from "../server/api";

export interface Action {
  busy: boolean;
  problem: Problem | null;
  /** Do it. What fails is shown as `problem` until the next time. */
  act: (work: () => Promise<void>) => Promise<void>;
}

export function useAction(): Action {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const act = useCallback(async (work: () => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      setProblem(error.problem);
    } finally {
      setBusy(false);
    }
  }, []);
  return { busy, problem, act };
}
