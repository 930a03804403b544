/** Files to a server and back. */
import { isNoRoute, refusal, unexpected } from "./answers.js";
import { GatewayError } from "./errors.js";
import type { Asset, RunFile } from "./values.js";
import { Lost, Tries, type Wire } from "./wire.js";

const STALL_S = 60;
const PIECE_BYTES = 256 * 1024;
const MAX_INLINE_BYTES = 128 * 1024 * 1024;

export interface FileOptions {
  signal?: AbortSignal | undefined;
  /** Called with bytes done and bytes in all (0: not known). For uploads in a browser only at their end: it cannot stream a request. */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export class Files {
  private owner: string | undefined;

  constructor(private readonly wire: Wire) {}

  /**
   * Send a file, and get what a payload says of it: `{ image: await client.files.upload(blob, "uploads/cat.png") }`. Without `ref` it gets one of
   * its own. A dev runner keeps none: there the file goes along with each payload.
   */
  async upload(source: Blob | Uint8Array | ArrayBuffer, ref = "", options: FileOptions = {}): Promise<Asset> {
    const bytes =
      source instanceof Uint8Array ? source : new Uint8Array(source instanceof ArrayBuffer ? source : await source.arrayBuffer());
    const sha256 = await digest(bytes);
    const owner = await this.ownerOf(options.signal);
    const kind = source instanceof Blob && source.type ? source.type : "application/octet-stream";
    if (owner === "") {
      if (bytes.length > MAX_INLINE_BYTES) throw new RangeError(`${bytes.length} bytes; a dev runner accepts files of at most ${MAX_INLINE_BYTES}`);
      options.onProgress?.(bytes.length, bytes.length);
      return { ref: `data:${kind};base64,${base64(bytes)}`, mime_type: kind, size_bytes: bytes.length, sha256 };
    }
    const name = ref.replace(/^\/+/, "") || `uploads/${crypto.randomUUID()}/file`;
    const isNode = typeof process !== "undefined" && typeof process.versions?.node === "string";
    const body = (): BodyInit => (options.onProgress && isNode ? told(bytes, options.onProgress) : (bytes as Uint8Array<ArrayBuffer>));
    const answer = await this.wire.ask({
      method: "PUT",
      path: `/v1/files/${encodeURIComponent(owner)}/${encodeRef(name)}`,
      headers: { "content-type": "application/octet-stream" },
      body,
      silenceS: STALL_S + bytes.length / 100_000, // `fetch` does not say how far it is; 100 kB/s is slow enough
      signal: options.signal,
    });
    if (answer.status < 200 || answer.status >= 300) throw refusal(answer);
    const kept = JSON.parse(answer.text) as Asset;
    if (kept.sha256 && kept.sha256 !== sha256) {
      throw new GatewayError(`${name} arrived as other bytes than were sent`, { code: "corrupted", hint: "send it again" });
    }
    if (!isNode) options.onProgress?.(bytes.length, bytes.length);
    return { ref: kept.ref, owner, mime_type: kept.mime_type ?? kind, size_bytes: bytes.length, sha256 };
  }

  /** The bytes of a file: an output (`run.files[0]`), an `Asset`, or a ref. A download that breaks goes on where it was. */
  async download(file: RunFile | Asset | string, options: FileOptions = {}): Promise<Uint8Array> {
    const path = await this.pathOf(file, options.signal);
    const tries = new Tries(this.wire.patience, { following: true, signal: options.signal });
    let pieces: Uint8Array[] = [];
    let done = 0;
    let etag = "";
    for (;;) {
      const resumed: Record<string, string> = done && etag ? { range: `bytes=${done}-`, "if-range": etag } : {};
      const request = { method: "GET", path, headers: { accept: "*/*", ...resumed }, silenceS: STALL_S, signal: options.signal, following: done > 0 };
      const opened = await this.wire.open(request);
      const { answer } = opened;
      if (answer.status < 200 || answer.status >= 300) throw refusal(answer);
      const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.headers.get("content-range") ?? "");
      const start = answer.status === 206 ? Number(range?.[1] ?? -1) : 0;
      const total = answer.status === 206 ? Number(range?.[2] ?? 0) : Number(answer.headers.get("content-length") ?? 0);
      if (start === 0) {
        pieces = [];
        done = 0;
      } else if (start !== done) throw unexpected(answer, `bytes from ${done} on`);
      const tag = answer.headers.get("etag") ?? "";
      etag = tag.startsWith("W/") ? "" : tag;
      try {
        for (let piece = await opened.next(); piece !== undefined; piece = await opened.next()) {
          tries.succeeded();
          pieces.push(piece);
          done += piece.length;
          options.onProgress?.(done, total);
        }
        if (total && done < total) throw new Lost(`the file ended after ${done} of ${total} bytes`, true);
      } catch (error) {
        opened.close();
        if (!(error instanceof Lost)) throw error;
        await tries.lost(error);
        continue;
      }
      const whole = joined(pieces, done);
      const wanted = answer.headers.get("x-cozy-sha256") ?? (typeof file === "string" ? null : (file.sha256 ?? null));
      if (wanted && wanted !== (await digest(whole))) {
        throw new GatewayError("the file arrived with other bytes than are stored", { code: "corrupted", hint: "ask for it again" });
      }
      return whole;
    }
  }

  private async pathOf(file: RunFile | Asset | string, signal: AbortSignal | undefined): Promise<string> {
    if (typeof file !== "string" && "url" in file && file.url?.startsWith("/v1/files/")) return file.url;
    const ref = typeof file === "string" ? file : file.ref;
    if (/^[a-z]+:/.test(ref)) throw new TypeError(`${ref.slice(0, 60)} is not a file of this server: expected a ref such as uploads/x.png`);
    const own = await this.ownerOf(signal);
    const owner = own && typeof file !== "string" && file.owner ? file.owner : own;
    return owner ? `/v1/files/${encodeURIComponent(owner)}/${encodeRef(ref)}` : `/v1/files/${encodeRef(ref)}`;
  }

  /** Whose files the key reads and writes; "" for a dev runner. */
  private async ownerOf(signal: AbortSignal | undefined): Promise<string> {
    if (this.owner === undefined) {
      const answer = await this.wire.ask({ method: "GET", path: "/v1/me", silenceS: 30, signal });
      if (isNoRoute(answer)) this.owner = "";
      else if (answer.status !== 200) throw refusal(answer);
      else {
        const found = (JSON.parse(answer.text) as { owner?: string }).owner ?? "local";
        this.owner = found === "*" ? "local" : found;
      }
    }
    return this.owner;
  }
}

function told(bytes: Uint8Array, onProgress: (done: number, total: number) => void): ReadableStream<Uint8Array> {
  let done = 0;
  return new ReadableStream({
    pull(controller) {
      if (done >= bytes.length) {
        controller.close();
        return;
      }
      const piece = bytes.subarray(done, done + PIECE_BYTES);
      done += piece.length;
      controller.enqueue(piece);
      onProgress(done, bytes.length);
    },
  });
}

function joined(pieces: Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

async function digest(bytes: Uint8Array): Promise<string> {
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function base64(bytes: Uint8Array): string {
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; at += 0x8000) pieces.push(String.fromCharCode(...bytes.subarray(at, at + 0x8000)));
  return btoa(pieces.join(""));
}

function encodeRef(ref: string): string {
  return ref.replace(/^\/+/, "").split("/").map(encodeURIComponent).join("/");
}

declare const process: { versions?: { node?: string } } | undefined;
