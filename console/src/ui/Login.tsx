// Where the platform asks for a key.

import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { keepKey, type Problem } from "../server/api";
import { ProblemNote } from "./parts";

export function Login({ problem, onKey }: { problem: Problem | null; onKey: () => void }) {
  const [text, setText] = useState("");
  return (
    <form
      className="login"
      onSubmit={(event) => {
        event.preventDefault();
        keepKey(text.trim());
        onKey();
      }}
    >
      <h2>Log in</h2>
      <p>This platform asks for a key. It is kept for this tab alone, and sent to this server alone.</p>
      {problem && <ProblemNote problem={problem} />}
      <div className="field">
        <label htmlFor="key">Key</label>
        <input id="key" name="key" type="password" autoComplete="off" spellCheck={false} value={text} onChange={(event) => setText(event.currentTarget.value)} placeholder="cz_…" />
        <p className="hint">Made with: cozyctl keys create. The first start of a platform leaves an operator's key in its data folder.</p>
      </div>
      <Button type="submit" className="button primary" isDisabled={!text.trim()}>
        Log in
      </Button>
    </form>
  );
}
