// What stands in a form, and the payload that it means. A draft follows its shape: numbers are kept as they were typed, files as files.

import { isObject, type Field, type Shape } from "./shape";
import type { Json } from "./resolve";

export type Draft =
  | { is: "absent" }
  | { is: "null" }
  | { is: "value"; value: string | boolean }
  | { is: "choice"; value: Json }
  | { is: "file"; file: File }
  | { is: "asset"; value: Json }
  | { is: "object"; fields: Record<string, Draft> }
  | { is: "list"; items: Draft[] }
  | { is: "map"; entries: [string, Draft][] }
  | { is: "variant"; index: number; draft: Draft };

/** The name of the only field of a payload that is no object, such as that of an `array_like` Struct. */
export const WHOLE = "";

export const ABSENT: Draft = { is: "absent" };
const NULL: Draft = { is: "null" };

/** How a new form begins: the default; without one, the first example; without either, empty. */
export function startOf(shape: Shape, required: boolean, fallback: Json | undefined): Draft {
  if (fallback !== undefined) return draftOf(shape, fallback);
  const example = shape.examples[0];
  if (example !== undefined) return draftOf(shape, example);
  if (!required && shape.kind !== "constant") return ABSENT;
  if (shape.nullable) return NULL;
  return emptyOf(shape);
}

/** The least that is there when somebody asks for a value. */
export function emptyOf(shape: Shape): Draft {
  switch (shape.kind) {
    case "text":
      return { is: "value", value: "" };
    case "number":
      return { is: "value", value: shape.bounded && shape.min !== undefined ? String(shape.min) : "" };
    case "json":
      return { is: "value", value: "" };
    case "boolean":
      return { is: "value", value: false };
    case "choice":
      return { is: "choice", value: shape.options[0] ?? null };
    case "constant":
      return { is: "choice", value: shape.value };
    case "file":
      return ABSENT;
    case "object":
      return { is: "object", fields: Object.fromEntries(shape.fields().map((each) => [each.name, startOf(each.shape, each.required, each.fallback)])) };
    case "list":
      return { is: "list", items: Array.from({ length: shape.minItems }, () => emptyOf(shape.item())) };
    case "tuple":
      return { is: "list", items: shape.items().map((each, index) => startOf(each, true, shape.fallbacks[index])) };
    case "map":
      return { is: "map", entries: [] };
    case "union": {
      const first = shape.variants()[0];
      return first ? { is: "variant", index: 0, draft: emptyOf(first.shape) } : ABSENT;
    }
  }
}

/** A value of JSON as it stands in a form. What does not fit the shape becomes empty. */
export function draftOf(shape: Shape, value: Json): Draft {
  if (value === null && shape.kind !== "json" && shape.kind !== "constant") return shape.nullable ? NULL : emptyOf(shape);
  switch (shape.kind) {
    case "text":
      return { is: "value", value: typeof value === "string" ? value : JSON.stringify(value) };
    case "number":
      return { is: "value", value: JSON.stringify(value) };
    case "json":
      return value === null ? NULL : { is: "value", value: JSON.stringify(value, null, 2) };
    case "boolean":
      return { is: "value", value: value === true };
    case "choice":
      return { is: "choice", value };
    case "constant":
      return { is: "choice", value: shape.value };
    case "file":
      return value === "" ? ABSENT : { is: "asset", value };
    case "object": {
      const given = isObject(value) ? value : {};
      return {
        is: "object",
        fields: Object.fromEntries(
          shape.fields().map((each) => {
            const inner = Object.hasOwn(given, each.name) ? given[each.name] : undefined;
            return [each.name, inner === undefined ? startOf(each.shape, each.required, each.fallback) : draftOf(each.shape, inner)];
          }),
        ),
      };
    }
    case "list":
      return { is: "list", items: Array.isArray(value) ? value.map((each) => draftOf(shape.item(), each)) : [] };
    case "tuple": {
      const given = Array.isArray(value) ? value : [];
      return { is: "list", items: shape.items().map((each, index) => (given[index] === undefined ? startOf(each, true, shape.fallbacks[index]) : draftOf(each, given[index]))) };
    }
    case "map":
      return { is: "map", entries: isObject(value) ? Object.entries(value).map(([key, inner]) => [key, draftOf(shape.value(), inner)]) : [] };
    case "union": {
      const variants = shape.variants();
      const index = Math.max(0, variants.findIndex((each) => each.takes(value)));
      const variant = variants[index];
      return variant ? { is: "variant", index, draft: draftOf(variant.shape, value) } : ABSENT;
    }
  }
}

/** A number as it was typed: one with more digits than a double holds is sent as it stands. */
export class TypedNumber {
  constructor(readonly text: string) {}
}

export type Sent = null | boolean | number | string | TypedNumber | Sent[] | { [key: string]: Sent };

export interface FilePart {
  /** The place in the payload, as in `images[0]` or `options.mask`. */
  name: string;
  file: File;
}

export interface Complaint {
  pointer: string;
  message: string;
}

export interface Payload {
  value: Sent;
  files: FilePart[];
  /** What cannot be sent at all, by JSON pointer. Everything else is for the server to judge. */
  complaints: Complaint[];
}

/** The payload that a form means. */
export function payloadOf(fields: Field[], drafts: Record<string, Draft>): Payload {
  const found: Payload = { value: {}, files: [], complaints: [] };
  const only = fields[0];
  if (only?.name === WHOLE) return { ...found, value: send(only.shape, drafts[WHOLE] ?? ABSENT, "", "", true, found) ?? null };
  const value: { [key: string]: Sent } = {};
  for (const field of fields) {
    const inner = send(field.shape, drafts[field.name] ?? ABSENT, field.name, `/${escapePointer(field.name)}`, field.required, found);
    if (inner !== undefined) value[field.name] = inner;
  }
  return { ...found, value };
}

function send(shape: Shape, draft: Draft, name: string, pointer: string, required: boolean, found: Payload): Sent | undefined {
  switch (draft.is) {
    case "absent":
      if (required && shape.kind === "file") found.complaints.push({ pointer, message: "choose a file" });
      return undefined;
    case "null":
      return null;
    case "choice":
    case "asset":
      return draft.value;
    case "file":
      found.files.push({ name, file: draft.file });
      return undefined;
    case "value":
      return scalar(shape, draft.value, pointer, required, found);
    case "object": {
      if (shape.kind !== "object") return undefined;
      const value: { [key: string]: Sent } = {};
      for (const field of shape.fields()) {
        const inner = send(field.shape, draft.fields[field.name] ?? ABSENT, `${name}.${field.name}`, `${pointer}/${escapePointer(field.name)}`, field.required, found);
        if (inner !== undefined) value[field.name] = inner;
      }
      return value;
    }
    case "list": {
      const shapes = shape.kind === "tuple" ? shape.items() : [];
      const value: Sent[] = [];
      draft.items.forEach((each, index) => {
        const item = shape.kind === "list" ? shape.item() : shapes[index];
        const inner = item && send(item, each, `${name}[${index}]`, `${pointer}/${index}`, true, found);
        // A file's place is kept, so that those after it stay where they are; the part of the form takes its place.
        value.push(inner === undefined ? null : inner);
      });
      while (value.length && value.at(-1) === null && draft.items[value.length - 1]?.is === "file") value.pop();
      return value;
    }
    case "map": {
      if (shape.kind !== "map") return undefined;
      const value: { [key: string]: Sent } = {};
      for (const [key, inner] of draft.entries) {
        const sent = send(shape.value(), inner, `${name}.${key}`, `${pointer}/${escapePointer(key)}`, true, found);
        if (sent !== undefined) value[key] = sent;
      }
      return value;
    }
    case "variant": {
      const variant = shape.kind === "union" ? shape.variants()[draft.index] : undefined;
      return variant && send(variant.shape, draft.draft, name, pointer, required, found);
    }
  }
}

function scalar(shape: Shape, value: string | boolean, pointer: string, required: boolean, found: Payload): Sent | undefined {
  if (typeof value === "boolean") return value;
  if (shape.kind === "number") {
    const text = value.trim();
    if (text === "") {
      if (shape.nullable) return null;
      if (required) found.complaints.push({ pointer, message: "a number is needed" });
      return undefined;
    }
    if (!/^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i.test(text)) {
      found.complaints.push({ pointer, message: `${text} is not a number` });
      return undefined;
    }
    return new TypedNumber(text);
  }
  if (shape.kind === "json") {
    if (value.trim() === "") return undefined;
    try {
      return JSON.parse(value) as Json;
    } catch (error) {
      found.complaints.push({ pointer, message: `this is not JSON: ${(error as Error).message}` });
      return undefined;
    }
  }
  if (value === "" && shape.nullable) return null;
  return value;
}

/** The payload as JSON, numbers as they were typed. */
export function encode(value: Sent, indent = 0, depth = 0): string {
  const [line, inner] = indent ? [`\n${" ".repeat(indent * (depth + 1))}`, `\n${" ".repeat(indent * depth)}`] : ["", ""];
  if (value instanceof TypedNumber) return value.text;
  if (Array.isArray(value)) return value.length ? `[${value.map((each) => line + encode(each, indent, depth + 1)).join(",")}${inner}]` : "[]";
  if (isObject(value)) {
    const entries = Object.entries(value as { [key: string]: Sent });
    const between = indent ? ": " : ":";
    return entries.length ? `{${entries.map(([key, each]) => line + JSON.stringify(key) + between + encode(each, indent, depth + 1)).join(",")}${inner}}` : "{}";
  }
  return JSON.stringify(value);
}

/** The names of fields whose text is a secret, as pointers. */
export function secretsOf(fields: Field[], drafts: Record<string, Draft>, base = ""): string[] {
  return fields.flatMap((field) => {
    const pointer = `${base}/${escapePointer(field.name)}`;
    const draft = drafts[field.name];
    if (field.shape.kind === "text" && field.shape.secret && draft?.is === "value" && draft.value !== "") return [pointer];
    if (field.shape.kind === "object" && draft?.is === "object") return secretsOf(field.shape.fields(), draft.fields, pointer);
    return [];
  });
}

/** The same with the texts at these pointers hidden. */
export function masked(value: Sent, pointers: string[]): Sent {
  const found = structuredCloneOf(value);
  for (const pointer of pointers) {
    const steps = pointer.slice(1).split("/").map((each) => each.replaceAll("~1", "/").replaceAll("~0", "~"));
    let here: Sent | undefined = found;
    for (const step of steps.slice(0, -1)) here = isObject(here) ? (here as { [key: string]: Sent })[step] : undefined;
    const last = steps.at(-1);
    if (isObject(here) && last !== undefined) (here as { [key: string]: Sent })[last] = "***";
  }
  return found;
}

function structuredCloneOf(value: Sent): Sent {
  if (value instanceof TypedNumber) return value;
  if (Array.isArray(value)) return value.map(structuredCloneOf);
  if (isObject(value)) return Object.fromEntries(Object.entries(value as { [key: string]: Sent }).map(([key, each]) => [key, structuredCloneOf(each)]));
  return value;
}

export function escapePointer(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
