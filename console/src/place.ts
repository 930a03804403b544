// Where we are: the page and what it is about, in the address behind `#`.

import { useSyncExternalStore } from "react";

export interface Place {
  /** `run`, `runs`, `history`, ... */
  page: string;
  /** What the page is about: a function's id, a run's. */
  about: string;
}

export function placeOf(hash: string): Place {
  let text = hash.replace(/^#\/?/, "");
  try {
    text = decodeURIComponent(text);
  } catch {
    // an address that somebody typed
  }
  const at = text.indexOf("/");
  if (!text) return { page: "run", about: "" };
  return at < 0 ? { page: text, about: "" } : { page: text.slice(0, at), about: text.slice(at + 1) };
}

export function linkTo(page: string, about = ""): string {
  return `#/${page}${about ? `/${encodeURIComponent(about).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%40", "@")}` : ""}`;
}

export function go(page: string, about = ""): void {
  location.hash = linkTo(page, about);
}

export function usePlace(): Place {
  const hash = useSyncExternalStore(
    (listener) => {
      addEventListener("hashchange", listener);
      return () => removeEventListener("hashchange", listener);
    },
    () => location.hash,
  );
  return placeOf(hash);
}
