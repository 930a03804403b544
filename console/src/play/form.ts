// The form of one function. It is kept while other functions are looked at, and goes along with a schema that changes.

import { useCallback, useState } from "react";
import { draftOf, startOf, WHOLE, type Draft } from "../schema/draft";
import type { Definitions, Json } from "../schema/resolve";
import { shapeOf, type Field, type Shape } from "../schema/shape";
import type { Fn } from "../server/functions";

export interface FormState {
  /** The schema that it was made for, to notice another one. */
  made: string;
  fields: Field[];
  drafts: Record<string, Draft>;
  touched: string[];
}

function fresh(fn: Fn, definitions: Definitions, made: string): FormState {
  const shape = shapeOf(fn.input, definitions);
  const fields = shape.kind === "object" ? shape.fields() : shape.kind === "json" && fn.input.type === "object" ? [] : [{ name: WHOLE, shape, required: true, fallback: undefined }];
  return { made, fields, drafts: Object.fromEntries(fields.map((each) => [each.name, startOf(each.shape, each.required, each.fallback)])), touched: [] };
}

/** What a schema says with all that it leads to: equal texts are equal forms. */
function textOf(fn: Fn, definitions: Definitions): string {
  const seen = new Map<string, unknown>();
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) return value.forEach(walk);
    if (typeof value !== "object" || value === null) return;
    const ref = (value as { $ref?: unknown }).$ref;
    if (typeof ref === "string") {
      const name = ref.slice(ref.lastIndexOf("/") + 1);
      if (!seen.has(name)) {
        seen.set(name, definitions[name]);
        walk(definitions[name]);
      }
    }
    Object.values(value).forEach(walk);
  };
  walk(fn.input);
  return JSON.stringify([fn.input, [...seen]]);
}

export interface Forms {
  of: (fn: Fn) => FormState;
  change: (fn: Fn, name: string, draft: Draft) => void;
  reset: (fn: Fn) => void;
  fill: (fn: Fn, input: Json) => void;
}

export function useForms(definitions: Definitions): Forms {
  const [forms, setForms] = useState<ReadonlyMap<string, FormState>>(new Map());
  const of = useCallback((fn: Fn): FormState => formOf(forms.get(fn.id), fn, definitions), [definitions, forms]);
  const change = useCallback(
    (fn: Fn, name: string, draft: Draft) =>
      setForms((all) => {
        const now = formOf(all.get(fn.id), fn, definitions);
        return new Map(all).set(fn.id, { ...now, drafts: { ...now.drafts, [name]: draft }, touched: [...new Set([...now.touched, name])] });
      }),
    [definitions],
  );
  const reset = useCallback((fn: Fn) => setForms((all) => new Map(all).set(fn.id, fresh(fn, definitions, textOf(fn, definitions)))), [definitions]);
  const fill = useCallback(
    (fn: Fn, input: Json) => {
      const now = fresh(fn, definitions, textOf(fn, definitions));
      const given = typeof input === "object" && input !== null && !Array.isArray(input) ? input : {};
      for (const field of now.fields) {
        if (field.name === WHOLE) {
          now.drafts[WHOLE] = draftOf(field.shape, input);
          now.touched.push(WHOLE);
          continue;
        }
        const value = Object.hasOwn(given, field.name) ? given[field.name] : undefined;
        if (value === undefined) continue;
        now.drafts[field.name] = draftOf(field.shape, value);
        now.touched.push(field.name);
      }
      setForms((all) => new Map(all).set(fn.id, now));
    },
    [definitions],
  );
  return { of, change, reset, fill };
}

/** The form as it is kept, or a new one. When the schema was edited, what somebody has typed stays where its field is still of that kind. */
function formOf(kept: FormState | undefined, fn: Fn, definitions: Definitions): FormState {
  const made = textOf(fn, definitions);
  if (kept?.made === made) return kept;
  const found = fresh(fn, definitions, made);
  for (const name of kept?.touched ?? []) {
    const before = kept?.fields.find((each) => each.name === name);
    const now = found.fields.find((each) => each.name === name);
    const draft = kept?.drafts[name];
    if (draft && before && now && before.shape.kind === now.shape.kind && stillFits(now.shape, draft)) {
      found.drafts[name] = draft;
      found.touched.push(name);
    }
  }
  return found;
}

function stillFits(shape: Shape, draft: Draft): boolean {
  if (draft.is === "null") return shape.nullable;
  if (shape.kind === "choice") return draft.is === "choice" && shape.options.includes(draft.value);
  return ["text", "number", "boolean", "file", "json"].includes(shape.kind);
}
