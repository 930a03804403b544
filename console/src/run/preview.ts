// What a function shows while it draws: an event `preview` with a small picture as a `data:` URL (docs/guides/log-and-debug.md).

import { isObject } from "../schema/shape";
import type { Json } from "../schema/resolve";

export interface Preview {
  /** A `data:` URL of one of the types that are pictures and nothing else. */
  image: string;
  caption: string;
}

const PICTURE = /^data:(image\/(?:png|jpeg|gif|webp|avif));base64,[A-Za-z0-9+/]+={0,2}$/;

/** The preview in an event of the author's own; null where it is another event, or no picture that may be shown. */
export function previewIn(event: { [key: string]: Json }): Preview | null {
  if (event.event_type !== "preview" || !isObject(event.payload)) return null;
  const { image, step } = event.payload;
  if (typeof image !== "string" || !PICTURE.test(image)) return null;
  return { image, caption: typeof step === "number" ? `preview, step ${step}` : "preview" };
}

/** An event as a line of text; of a preview without its picture. */
export function lineOf(name: string, data: unknown): string {
  const preview = isObject(data) ? previewIn(data as { [key: string]: Json }) : null;
  if (preview) return `${preview.caption} ${preview.image.slice(0, preview.image.indexOf(","))} (${preview.image.length} characters)`;
  return `${name} ${JSON.stringify(data)}`.slice(0, 2000);
}
