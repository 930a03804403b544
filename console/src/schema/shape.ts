// What a form shows for a schema: one shape for each kind of value. References are followed when a shape is opened, so that a type may hold itself.

import { isExactNumber } from "./exact";
import { resolve, type Definitions, type Json, type Schema } from "./resolve";

interface Common {
  title: string;
  description: string;
  /** Whether `null` is a value of it. */
  nullable: boolean;
  examples: Json[];
}

export type Shape = Common &
  (
    | { kind: "text"; long: boolean; secret: boolean; format: string; maxLength?: number; pattern?: string }
    | { kind: "number"; whole: boolean; min?: number; max?: number; step: number; bounded: boolean }
    | { kind: "boolean" }
    | { kind: "choice"; options: Json[] }
    | { kind: "constant"; value: Json }
    | { kind: "file"; bytes: boolean; accept: string }
    | { kind: "object"; fields: () => Field[] }
    | { kind: "list"; item: () => Shape; unique: boolean; minItems: number; maxItems: number }
    | { kind: "tuple"; items: () => Shape[]; fallbacks: (Json | undefined)[] }
    | { kind: "map"; value: () => Shape }
    | { kind: "union"; variants: () => Variant[] }
    | { kind: "json" }
  );

export type ShapeOf<Kind extends Shape["kind"]> = Extract<Shape, { kind: Kind }>;

export interface Field {
  name: string;
  shape: Shape;
  required: boolean;
  /** Undefined where the schema names none. */
  fallback: Json | undefined;
}

export interface Variant {
  label: string;
  shape: Shape;
  /** Whether a value is one of this variant. */
  takes: (value: Json) => boolean;
}

const SECRET = /(^|_)(password|passphrase|secret|api_?key|access_key|(auth|access|bearer|refresh)_token)$/i;
const LONG = /(^|_)(prompt|text|message|content|instructions?|description|body|code|query)$/i;

export function shapeOf(raw: Schema, definitions: Definitions, name = ""): Shape {
  const schema = resolve(raw, definitions);
  const common: Common = {
    title: schema.title ?? "",
    description: tidy(raw.description ?? schema.description ?? ""),
    nullable: false,
    examples: schema.examples ?? [],
  };
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return unionOf(choices, schema, common, definitions, name);
  if (schema.enum) {
    const options = schema.enum.filter((each) => each !== null);
    const nullable = options.length < schema.enum.length;
    if (options.length === 1 && !nullable) return { ...common, kind: "constant", value: options[0] as Json };
    return { ...common, kind: "choice", options, nullable };
  }
  if (schema.const !== undefined) return { ...common, kind: "constant", value: schema.const };
  if (Array.isArray(schema.type)) {
    return unionOf(schema.type.map((type) => ({ ...schema, type })), schema, common, definitions, name);
  }
  switch (schema.type) {
    case "boolean":
      return { ...common, kind: "boolean" };
    case "integer":
    case "number":
      return { ...common, kind: "number", ...numbers(schema) };
    case "string":
      if (schema.contentEncoding === "base64") return { ...common, kind: "file", bytes: true, accept: schema.contentMediaType ?? "" };
      return {
        ...common,
        kind: "text",
        long: !schema.format && !((schema.maxLength ?? Infinity) <= 80) && (LONG.test(name) || String(schema.default ?? schema.examples?.[0] ?? "").length > 60),
        secret: schema.format === "password" || schema.writeOnly === true || schema["x-secret"] === true || SECRET.test(name),
        format: schema.format ?? "",
        maxLength: schema.maxLength,
        pattern: schema.pattern,
      };
    case "array":
      if (schema.prefixItems) {
        const places = schema.prefixItems;
        return { ...common, kind: "tuple", items: () => places.map((each) => shapeOf(each, definitions)), fallbacks: places.map((each) => resolve(each, definitions).default) };
      }
      return {
        ...common,
        kind: "list",
        item: () => shapeOf(typeof schema.items === "object" ? schema.items : {}, definitions),
        unique: (schema as { uniqueItems?: boolean }).uniqueItems === true,
        minItems: schema.minItems ?? 0,
        maxItems: schema.maxItems ?? Infinity,
      };
    case "object":
      return objectOf(schema, common, definitions);
    default:
      return { ...common, kind: "json" };
  }
}

export function fieldsOf(schema: Schema, definitions: Definitions): Field[] {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, raw]) => ({
    name,
    shape: shapeOf(raw, definitions, name),
    required: required.has(name),
    fallback: resolve(raw, definitions).default,
  }));
}

function objectOf(schema: Schema, common: Common, definitions: Definitions): Shape {
  const properties = schema.properties ?? {};
  if (schema.title?.endsWith("Asset") || "sha256" in properties) {
    if ("ref" in properties && "sha256" in properties) return { ...common, description: "", kind: "file", bytes: false, accept: schema.contentMediaType ?? "" };
  }
  if (typeof schema.additionalProperties === "object" && !Object.keys(properties).length) {
    const value = schema.additionalProperties;
    return { ...common, kind: "map", value: () => shapeOf(value, definitions) };
  }
  if (!schema.properties) return { ...common, kind: "json" };
  return { ...common, kind: "object", fields: () => fieldsOf(schema, definitions) };
}

function unionOf(choices: Schema[], schema: Schema, common: Common, definitions: Definitions, name: string): Shape {
  const rest = choices.filter((each) => resolve(each, definitions).type !== "null");
  const nullable = rest.length < choices.length;
  const only = rest[0];
  if (rest.length === 1 && only) {
    const { anyOf: _, oneOf: __, ...beside } = schema;
    const found = shapeOf(schema.contentMediaType ? { ...only, contentMediaType: schema.contentMediaType } : only, definitions, name);
    const shape = { ...found, nullable: nullable || found.nullable, description: tidy(beside.description ?? "") || found.description };
    return schema.examples ? { ...shape, examples: schema.examples } : shape;
  }
  if (!rest.length) return { ...common, kind: "constant", value: null };
  const tag = schema.discriminator?.propertyName;
  const variants = () =>
    rest.map((each): Variant => {
      const full = resolve(each, definitions);
      const shape = shapeOf(each, definitions, name);
      const word = tag ? full.properties?.[tag]?.enum?.[0] ?? full.properties?.[tag]?.const : undefined;
      return {
        label: word !== undefined ? String(word) : full.title || wordFor(shape),
        shape,
        takes: (value) => {
          if (word !== undefined) return isObject(value) && value[tag as string] === word;
          return fits(value, full);
        },
      };
    });
  return { ...common, kind: "union", nullable, variants };
}

function numbers(schema: Schema): { whole: boolean; min?: number; max?: number; step: number; bounded: boolean } {
  const whole = schema.type === "integer";
  const unit = schema.multipleOf ?? (whole ? 1 : 0);
  const min = schema.minimum ?? (schema.exclusiveMinimum !== undefined && whole ? schema.exclusiveMinimum + 1 : schema.exclusiveMinimum);
  const max = schema.maximum ?? (schema.exclusiveMaximum !== undefined && whole ? schema.exclusiveMaximum - 1 : schema.exclusiveMaximum);
  const range = min !== undefined && max !== undefined ? max - min : Infinity;
  const step = unit || (range <= 1 ? 0.01 : range <= 10 ? 0.05 : range <= 100 ? 0.5 : 1);
  // A slider of more than a few thousand places cannot be set with a finger.
  return { whole, min, max, step, bounded: range > 0 && range / step <= 4096 };
}

function fits(value: Json, schema: Schema): boolean {
  if (schema.enum) return schema.enum.includes(value as never);
  switch (schema.type) {
    case "integer":
      return (typeof value === "number" && Number.isInteger(value)) || isExactNumber(value);
    case "number":
      return typeof value === "number" || isExactNumber(value);
    case "string":
      return typeof value === "string";
    case "boolean":
      return typeof value === "boolean";
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    default:
      return false;
  }
}

export function isObject(value: unknown): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isExactNumber(value);
}

function wordFor(shape: Shape): string {
  switch (shape.kind) {
    case "number":
      return shape.whole ? "whole number" : "number";
    case "boolean":
      return "yes or no";
    case "list":
      return "list";
    case "map":
    case "object":
      return "object";
    case "choice":
      return "choice";
    case "constant":
      return JSON.stringify(shape.value);
    default:
      return shape.kind;
  }
}

/** A docstring without the indentation of its source. */
export function tidy(text: string): string {
  return text.replace(/\n[ \t]+/g, "\n").trim();
}
