// Two texts side by side, with the lines that differ marked.

import { Scroll } from "./table";

export interface Row {
  left: string | null;
  right: string | null;
}

const MAX_LINES = 1500;

/** Lines that both have stand beside each other: the longest common subsequence. */
export function rowsOf(left: string, right: string): Row[] {
  const a = left.split("\n").slice(0, MAX_LINES);
  const b = right.split("\n").slice(0, MAX_LINES);
  const width = b.length + 1;
  const common = new Uint16Array((a.length + 1) * width);
  const at = (i: number, j: number): number => common[i * width + j] as number;
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) common[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
  const rows: Row[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) rows.push({ left: a[i++] as string, right: b[j++] as string });
    else if (i < a.length && (j >= b.length || at(i + 1, j) >= at(i, j + 1))) rows.push({ left: a[i++] as string, right: null });
    else rows.push({ left: null, right: b[j++] as string });
  }
  return paired(rows);
}

/** A line that went and one that came beside it, as long as both have one. */
function paired(rows: Row[]): Row[] {
  const found: Row[] = [];
  for (let at = 0; at < rows.length; ) {
    const gone: string[] = [];
    const come: string[] = [];
    for (; at < rows.length; at++) {
      const row = rows[at] as Row;
      if (row.left !== null && row.right !== null) break;
      if (row.left !== null) gone.push(row.left);
      else come.push(row.right as string);
    }
    for (let index = 0; index < Math.max(gone.length, come.length); index++) found.push({ left: gone[index] ?? null, right: come[index] ?? null });
    if (at < rows.length) found.push(rows[at++] as Row);
  }
  return found;
}

export function SideBySide({ left, right, names, label }: { left: string; right: string; names: [string, string]; label: string }) {
  const rows = rowsOf(left, right);
  const same = rows.every((each) => each.left === each.right);
  return (
    <Scroll label={label}>
      <table className="diff">
        <thead>
          <tr>
            <th scope="col">{names[0]}</th>
            <th scope="col">
              {names[1]} {same && <span className="optional">the same</span>}
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((each, index) => (
            <tr key={index} className={each.left === each.right ? undefined : "differs"}>
              <td className={each.left === null ? "nothing" : undefined}>{each.left}</td>
              <td className={each.right === null ? "nothing" : undefined}>{each.right}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
