// What a run gave: text as text, everything else as JSON.

import { isObject } from "../schema/shape";
import type { Json } from "../schema/resolve";
import { Block, CopyButton, Details, pretty } from "../ui/parts";
import type { RunView } from "./run";

const MAX_SHOWN = 100_000; // a browser lays out no more many times a second

/** The pieces of a stream, or the output. With `follow` the newest stays in view. */
export function Outputs({ view, name = "Output", follow = false }: { view: RunView; name?: string; follow?: boolean }) {
  if (view.items.length) {
    const lines = (): string => view.items.map((each) => JSON.stringify(each)).join("\n");
    const left = view.itemCount - view.items.length;
    const pieces = left > 0 ? `the last ${view.items.length.toLocaleString()} of ${view.itemCount.toLocaleString()}` : String(view.items.length);
    if (!view.text)
      return (
        <>
          {left > 0 && <p className="hint">Pieces: {pieces}.</p>}
          <Shown follow={follow} text={lines()} label={name} />
        </>
      );
    return (
      <>
        <Shown follow={follow} text={view.text} label={name} />
        <Details summary={`Pieces (${pieces})`} render={() => <Shown text={lines()} label={`Pieces: ${name}`} />} />
      </>
    );
  }
  if (view.output === undefined || view.output === null) return null;
  return <OutputValue value={view.output} name={name} />;
}

/** An output: its text where it is one text, else its JSON. Of one that is nothing but files, which stand beside it, the JSON is out of the way. */
export function OutputValue({ value, name = "Output" }: { value: Json; name?: string }) {
  const text = onlyText(value);
  const json = () => <Shown text={pretty(value)} label={text === null ? name : `${name} as JSON`} />;
  if (text !== null) {
    return (
      <>
        <Shown text={text} label={name} />
        <Details summary="JSON" render={json} />
      </>
    );
  }
  return isOnlyFiles(value) ? <Details summary="JSON" render={json} /> : json();
}

/** A text of any length. Of a very long one its beginning, or its end while it grows. */
export function Shown({ text, label, follow = false }: { text: string; label: string; follow?: boolean }) {
  return (
    <div className={follow ? "shown streamed" : "shown"}>
      {text.length > MAX_SHOWN && (
        <p className="hint">
          The {follow ? "last" : "first"} {MAX_SHOWN.toLocaleString()} of {text.length.toLocaleString()} characters; Copy takes all.
        </p>
      )}
      <Block follow={follow} className="output" label={label}>
        {follow ? text.slice(-MAX_SHOWN) : text.slice(0, MAX_SHOWN)}
      </Block>
      <CopyButton text={text} />
    </div>
  );
}

function onlyText(value: Json): string | null {
  if (typeof value === "string") return value;
  if (!isObject(value)) return null;
  const entries = Object.entries(value);
  const only = entries.length === 1 ? entries[0]?.[1] : undefined;
  return typeof only === "string" && only.includes(" ") ? only : null;
}

function isOnlyFiles(value: Json): boolean {
  if (Array.isArray(value)) return value.length > 0 && value.every(isOnlyFiles);
  if (!isObject(value)) return false;
  if (typeof value.ref === "string" && typeof value.sha256 === "string") return true;
  const entries = Object.values(value);
  return entries.length > 0 && entries.every(isOnlyFiles);
}
