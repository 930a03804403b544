// What differs between two releases for callers.

import type { Change } from "./shapes";

export function Changes({ changes }: { changes: Change[] }) {
  if (!changes.length) return <p className="hint">Nothing: payload and output are the same.</p>;
  return (
    <ul className="changes">
      {changes.map((each, index) => (
        <li key={index} className={each.breaking ? "breaking" : undefined}>
          {each.breaking && <span className="badge failed">breaks callers</span>} {each.function} {each.side} <code>{each.pointer || "/"}</code>: {each.text}
        </li>
      ))}
    </ul>
  );
}
