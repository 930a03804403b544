/** A realtime session: a websocket to a handler, the same at the platform and at a dev runner. */
import { type Answer, isNoRoute, refusal } from "./answers.js";
import { NotFoundError, SessionError, UnreachableError } from "./errors.js";
import { type Wire } from "./wire.js";

/** Options of a session. A dev runner knows `timeoutS` alone, and leaves the others out. */
export interface SessionOptions {
  /** The session is ended after so many seconds. */
  timeoutS?: number | undefined;
  /** How long it waits for a worker. */
  startTimeoutS?: number | undefined;
  priority?: "high" | "normal" | "low" | undefined;
  /** Aborting it ends the session, and rejects what waits for a message. */
  signal?: AbortSignal | undefined;
}

/** How a session ended: the websocket's close code and reason. 1000 is a normal end, 1006 a lost connection. */
export interface SessionEnd {
  code: number;
  reason: string;
}

/** What this client needs of `WebSocket`. */
export type WebSocketClass = new (url: string, protocols?: string | string[]) => WebSocket;

const NORMAL = 1000;
const LOST = 1006;
const MAX_MESSAGE_BYTES = (16 << 20) - (32 << 10);
const HIGH_WATER_BYTES = 1 << 20;
const CONNECT_S = 15;
const CLOSE_MS = 5000;
const AGAIN = new Set([1001, 1012, 1013]); // going away, service restart, try again later
const WORDS: Record<string, string> = {
  worker_draining: "the server or its worker is stopping",
  worker_lost: "the session's worker is gone",
  leader_lost: "the node that held the session is gone",
  idle_timeout: "no message was sent for too long",
  slow_consumer: "this client read too slowly",
  frame_too_large: "a message was too large",
  expired: "no worker was free in time",
  key_revoked: "the key that opened the session was revoked",
  key_expired: "the key that opened the session has expired",
  connection_lost: "the connection broke",
  "error:CanceledError": "the session's run was cancelled",
  "error:DeadlineError": "the session's time was up",
};

/** A session that is open. Iterate over it once: texts come as `string`, binary messages as `Uint8Array`. */
export class Session implements AsyncIterable<string | Uint8Array> {
  /** How it ended; undefined while it is open. */
  ended: SessionEnd | undefined;
  /** Resolves when the session is over, however it ended. */
  readonly closed: Promise<SessionEnd>;
  private readonly held: (string | Uint8Array)[] = [];
  private wake: (() => void)[] = [];
  private isLeaving = false;

  /** @internal */
  constructor(
    /** Names its run: `client.handle(session.id)`. */
    readonly id: string,
    private readonly socket: WebSocket,
    private readonly signal: AbortSignal | undefined,
  ) {
    let tell: (end: SessionEnd) => void = () => undefined;
    this.closed = new Promise((resolve) => (tell = resolve));
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (this.isLeaving) return;
      this.held.push(typeof event.data === "string" ? event.data : new Uint8Array(event.data));
      this.change();
    };
    socket.onclose = (event) => {
      signal?.removeEventListener("abort", this.abort);
      this.ended ??= event.code === 1005 ? { code: NORMAL, reason: "" } : { code: event.code, reason: event.reason || (event.code === LOST ? "connection_lost" : "") };
      tell(this.ended);
      this.change();
    };
    signal?.addEventListener("abort", this.abort, { once: true });
    if (signal?.aborted) this.abort();
  }

  /** Send one message: a text, or bytes. Resolves when it is on its way; it waits while the handler has no room. */
  async send(data: string | Uint8Array | ArrayBuffer): Promise<void> {
    const sizeBytes = typeof data === "string" ? new TextEncoder().encode(data).length : data.byteLength;
    if (sizeBytes > MAX_MESSAGE_BYTES) throw new RangeError(`a message of ${sizeBytes} bytes; at most ${MAX_MESSAGE_BYTES} are possible, send it in pieces`);
    this.checkOpen();
    this.socket.send(data as string | ArrayBuffer);
    while (this.socket.bufferedAmount > HIGH_WATER_BYTES && this.ended === undefined) await sleep(10); // the socket tells nobody that it has room
  }

  /** Send a value as JSON text. */
  async sendJson(value: unknown): Promise<void> {
    await this.send(JSON.stringify(value));
  }

  /** The next message. `SessionError` when the session is over, however it ended. */
  async receive(): Promise<string | Uint8Array> {
    for (;;) {
      if (this.signal?.aborted) throw this.signal.reason;
      const message = this.held.shift();
      if (message !== undefined) return message;
      this.checkOpen();
      await new Promise<void>((resolve) => this.wake.push(resolve));
    }
  }

  /** The next message, decoded as JSON. */
  async receiveJson<Value = unknown>(): Promise<Value> {
    const message = await this.receive();
    return JSON.parse(typeof message === "string" ? message : new TextDecoder().decode(message)) as Value;
  }

  /** The messages. They end when the session has ended normally; otherwise `SessionError`. Leaving the loop ends the session. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string | Uint8Array, void, void> {
    try {
      for (;;) {
        let message: string | Uint8Array;
        try {
          message = await this.receive();
        } catch (error) {
          if (error instanceof SessionError && error.closeCode === NORMAL) return;
          throw error;
        }
        yield message;
      }
    } finally {
      await this.close();
    }
  }

  /** End the session: the handler reads what was sent, and then its iteration ends. Does nothing when it is over. */
  async close(code = NORMAL, reason = ""): Promise<void> {
    if (this.ended !== undefined) return;
    this.leave(code, reason);
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.closed, new Promise((resolve) => (timer = setTimeout(resolve, CLOSE_MS)))]);
    clearTimeout(timer);
  }

  private readonly abort = (): void => this.leave(NORMAL, "");

  private leave(code: number, reason: string): void {
    if (this.isLeaving) return;
    this.isLeaving = true;
    this.ended ??= { code, reason };
    this.held.length = 0;
    this.socket.close(code, reason);
    this.change();
  }

  private change(): void {
    const waiting = this.wake;
    this.wake = [];
    for (const each of waiting) each();
  }

  private checkOpen(): void {
    if (this.signal?.aborted) throw this.signal.reason;
    if (this.ended !== undefined) throw errorOf(this.ended, this.id);
  }
}

function errorOf(end: SessionEnd, runId: string): SessionError {
  const said = WORDS[end.reason] ?? (end.reason.startsWith("error:") ? `the handler raised ${end.reason.slice("error:".length)}` : end.reason || `close code ${end.code}`);
  const retryable = AGAIN.has(end.code);
  return new SessionError(end.code === NORMAL ? "the session is over" : `the session ended: ${said}`, {
    code: "session_ended",
    hint: retryable ? "open a new session" : undefined,
    runId,
    closeCode: end.code,
    reason: end.reason,
    retryable,
  });
}

/** Open a session at the first of these paths that the server knows. Gives the session, and the number of its path. */
export async function openSession(
  wire: Wire,
  paths: string[],
  query: (place: number) => Record<string, string>,
  key: string,
  options: SessionOptions,
  socketClass: WebSocketClass | undefined,
): Promise<[Session, number]> {
  if (socketClass === undefined) {
    throw new TypeError("this JavaScript engine has no WebSocket (Node has one from 22 on): give the client one, as new Client({ WebSocket })");
  }
  for (const [place, path] of paths.entries()) {
    const id = crypto.randomUUID();
    const url = `${wire.url.replace(/^http/, "ws")}${path}?${new URLSearchParams({ run_id: id, ...query(place) }).toString()}`;
    // No engine's WebSocket takes headers from pages: the key goes as a subprotocol.
    const socket = new socketClass(url, key ? ["cozy.realtime", `cozy.key.${key}`] : []);
    socket.binaryType = "arraybuffer";
    if (await isOpen(socket, options.signal)) return [new Session(id, socket, options.signal), place];
    options.signal?.throwIfAborted();
    // A websocket does not say why it was refused; the same URL without the upgrade does.
    const answer: Answer = await wire.ask({ method: "GET", path, silenceS: CONNECT_S, signal: options.signal });
    if (answer.status === 426) throw new UnreachableError(`the websocket ${path} was not opened; is there a proxy in between that passes none?`, { code: "unreachable" });
    if (!isNoRoute(answer)) throw refusal(answer);
  }
  const hint = "a platform expects owner/endpoint/function[:tag]; only `cozyctl dev` accepts a bare name";
  throw new NotFoundError("this server has no such websocket", { code: "not_found", status: 404, hint });
}

function isOpen(socket: WebSocket, signal: AbortSignal | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (opened: boolean): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      socket.onopen = socket.onerror = socket.onclose = null;
      if (!opened) socket.close();
      resolve(opened);
    };
    const stop = (): void => done(false);
    const timer = setTimeout(stop, CONNECT_S * 1000);
    signal?.addEventListener("abort", stop, { once: true });
    socket.onopen = () => done(true);
    socket.onerror = socket.onclose = stop;
    if (signal?.aborted) stop();
  });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
