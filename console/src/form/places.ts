// Where files go that somebody drops or pastes somewhere on the page.

import type { Draft } from "../schema/draft";
import type { Field } from "../schema/shape";

/** Each file to a field: those for one file that are empty first, then the first for several; a single file replaces the one that is there.
 * `left`: how many have no place. */
export function placesFor(files: File[], fields: Field[], drafts: Record<string, Draft>): { changes: [string, Draft][]; left: number } {
  const rest = [...files];
  const changes: [string, Draft][] = [];
  const single = fields.filter((each) => each.shape.kind === "file");
  for (const field of single) {
    if (drafts[field.name]?.is === "file") continue;
    const file = rest.shift();
    if (!file) return { changes, left: 0 };
    changes.push([field.name, { is: "file", file }]);
  }
  const several = fields.find((each) => each.shape.kind === "list" && each.shape.item().kind === "file");
  if (several?.shape.kind === "list" && rest.length) {
    const draft = drafts[several.name];
    const items = draft?.is === "list" ? draft.items : [];
    const taken = rest.splice(0, several.shape.maxItems - items.length);
    changes.push([several.name, { is: "list", items: [...items, ...taken.map((file): Draft => ({ is: "file", file }))] }]);
  }
  if (files.length === 1 && rest[0] && single[0]) return { changes: [[single[0].name, { is: "file", file: rest[0] }]], left: 0 };
  return { changes, left: rest.length };
}
