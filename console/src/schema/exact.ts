// JSON with whole numbers of any size. A seed may have more digits than a double holds; such a number is kept as its text where the browser can
// (`JSON.rawJSON`), and written back as it came.

import type { Json } from "./resolve";

interface ExactJson {
  rawJSON?: (text: string) => Json;
  isRawJSON?: (value: unknown) => boolean;
}

const exact = JSON as unknown as ExactJson;

export function parseExact(text: string): unknown {
  const { rawJSON } = exact;
  if (!rawJSON || !/\d{16}/.test(text)) return JSON.parse(text);
  const revive = (_: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === "number" && !Number.isSafeInteger(value) && context?.source && /^-?\d+$/.test(context.source) ? rawJSON(context.source) : value;
  return JSON.parse(text, revive as (key: string, value: unknown) => unknown);
}

export function isExactNumber(value: unknown): boolean {
  return exact.isRawJSON?.(value) ?? false;
}
