// JSON Schema as the servers publish it, and how to follow its references.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Schema {
  $ref?: string;
  title?: string;
  description?: string;
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: boolean | Schema;
  prefixItems?: Schema[];
  minItems?: number;
  maxItems?: number;
  anyOf?: Schema[];
  oneOf?: Schema[];
  discriminator?: { propertyName: string; mapping?: Record<string, string> };
  enum?: Json[];
  const?: Json;
  default?: Json;
  examples?: Json[];
  format?: string;
  contentEncoding?: string;
  contentMediaType?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  writeOnly?: boolean;
  "x-secret"?: boolean;
}

/** Schemas by the name at the end of a `$ref`. */
export type Definitions = Record<string, Schema>;

/** The schema that a chain of references leads to. What stands beside a reference (default, description) goes over what it leads to. */
export function resolve(schema: Schema, definitions: Definitions): Schema {
  let found = schema;
  for (let steps = 0; found.$ref && steps < 20; steps++) {
    const { $ref, ...beside } = found;
    const name = decodeURIComponent($ref.slice($ref.lastIndexOf("/") + 1));
    found = { ...(definitions[name] ?? {}), ...beside };
  }
  return found;
}

/** A manifest's schema, which brings its own `$defs`. */
export function definitionsOf(schema: Schema & { $defs?: Definitions }): Definitions {
  return schema.$defs ?? {};
}
