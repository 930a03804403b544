// What may be shown of a file that a function saved, and how it is fetched. What is not one of these types is a download, never a page.

import { useEffect, useState } from "react";
import { ask, currentKey, Trouble } from "../server/api";
import type { OutFile } from "./run";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"];

export type Media = "image" | "audio" | "video" | "other";

export function mediaOf(file: OutFile): Media {
  const type = (file.mime_type ?? "").toLowerCase().split(";")[0]?.trim() ?? "";
  if (PICTURES.includes(type)) return "image";
  if (/^audio\/[a-z0-9.+-]+$/.test(type)) return "audio";
  if (/^video\/[a-z0-9.+-]+$/.test(type)) return "video";
  return "other";
}

/** Only addresses of this server: a function's word is not enough to make the page ask elsewhere. */
function ownPath(url: string): string {
  return /^\/v1\/files\/[^?#]/.test(url) && !url.includes("//") ? url : "";
}

/** Where a file can be read: its path, or a copy in memory where the server asks for a key. Empty until it is there. */
export function useFileUrl(file: OutFile): { url: string; problem: string } {
  const path = ownPath(file.url ?? "");
  const needsCopy = currentKey() !== "";
  const [found, setFound] = useState({ url: needsCopy ? "" : path, problem: path ? "" : "this file has no address on this server" });
  useEffect(() => {
    if (!path || !needsCopy) return setFound({ url: path, problem: path ? "" : "this file has no address on this server" });
    const stop = new AbortController();
    let made = "";
    const type = mediaOf(file) === "other" ? "application/octet-stream" : (file.mime_type ?? "");
    ask(path, { signal: stop.signal })
      .then((answer) => answer.arrayBuffer())
      .then((data) => {
        made = URL.createObjectURL(new Blob([data], { type }));
        setFound({ url: made, problem: "" });
      })
      .catch((error: Error) => {
        if (!stop.signal.aborted) setFound({ url: "", problem: error instanceof Trouble ? error.message : String(error) });
      });
    return () => {
      stop.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [path, needsCopy, file]);
  return found;
}
