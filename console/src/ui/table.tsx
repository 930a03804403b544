// What tables are made of.

import type { ReactNode } from "react";
import { duration } from "./parts";

/** The names of a table's columns. With `actions` a last one follows, for buttons, whose name is read aloud only. */
export function Head({ columns, actions = false }: { columns: string[]; actions?: boolean }) {
  return (
    <thead>
      <tr>
        {columns.map((each) => (
          <th scope="col" key={each}>
            {each}
          </th>
        ))}
        {actions && (
          <th scope="col">
            <span className="hidden-label">Actions</span>
          </th>
        )}
      </tr>
    </thead>
  );
}

/** A table that is wider than a phone scrolls by itself, by keyboard too. */
export function Scroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={label}>
      {children}
    </div>
  );
}

export function When({ at }: { at: string | number | null | undefined }) {
  if (!at) return null;
  const time = typeof at === "number" ? new Date(at * 1000) : new Date(at);
  const iso = time.toISOString();
  const isToday = iso.slice(0, 10) === new Date().toISOString().slice(0, 10);
  return (
    <time dateTime={iso} title={iso}>
      {isToday ? time.toLocaleTimeString() : time.toLocaleString()}
    </time>
  );
}

export function Took({ ms }: { ms: number | null | undefined }) {
  return <span className="figure">{typeof ms === "number" ? duration(ms) : ""}</span>;
}
