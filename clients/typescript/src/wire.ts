/** Requests to one server, sent again where that is safe and may help. */
import { type Answer, isStarting, maybeRun, refusal } from "./answers.js";
import { ClientError, GatewayError, UnreachableError } from "./errors.js";

/** How often a request is sent again. `asking`: tries of a request that may be new to the server; `following`: of a run that was accepted. */
export interface Patience {
  asking: number;
  following: number;
  firstPauseMs: number;
  maxPauseMs: number;
  /** The longest `Retry-After` that is waited for, in seconds. */
  maxAskedS: number;
  /** How long a server that is starting is waited for, in seconds. */
  startingS: number;
}

export const PATIENCE: Patience = { asking: 5, following: 20, firstPauseMs: 100, maxPauseMs: 5000, maxAskedS: 60, startingS: 300 };

// Statuses that pass; 520 to 524 are Cloudflare's for an origin that is down or slow.
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524]);
const SILENCE_COUNTS = 7; // a try that took its whole time, most of a minute, is as good as so many that failed at once
const START_PAUSE_S = 1; // between tries while the server is starting, unless it says how long
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

/** What this client needs of `fetch`. */
export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

export interface Request {
  method: string;
  path: string;
  headers?: Record<string, string>;
  /** Made anew for each try. */
  body?: () => BodyInit;
  /** The longest silence, in seconds, that is no loss. */
  silenceS: number;
  signal?: AbortSignal | undefined;
  /** Whether it may be sent again where the server may have taken it. */
  repeatable?: boolean;
  following?: boolean;
}

/** An answer whose body is read piece by piece. `close` ends it; `next` is undefined at its end, and rejects with `Lost`. */
export interface Opened {
  answer: Answer;
  next: () => Promise<Uint8Array | undefined>;
  close: () => void;
}

/** No answer, or not all of it. `sent`: the server may have seen the request; `silent`: it was waited for as long as it may take. */
export class Lost extends Error {
  constructor(
    readonly why: string,
    readonly sent: boolean,
    readonly silent = false,
  ) {
    super(why);
  }
}

/** Counts failures in a row and waits between them; a success ends the row. */
export class Tries {
  private failures = 0;
  private startingMs = 0;
  private limit: number;

  constructor(
    private readonly patience: Patience,
    private readonly request: Pick<Request, "following" | "repeatable" | "signal">,
  ) {
    this.limit = request.following ? patience.following : patience.asking;
  }

  succeeded(): void {
    this.failures = 0;
  }

  /** Once a request was sent, the server may have promised something: then there is more patience. */
  async lost(lost: Lost): Promise<void> {
    if (lost.sent) this.limit = this.patience.following;
    if (lost.silent) this.failures += SILENCE_COUNTS - 1;
    const hint = lost.sent ? undefined : "is it running, and is the address right?";
    await this.after(new UnreachableError(lost.why, { code: "unreachable", hint }), !lost.sent);
  }

  /** Wait before the next try; throws `error` where there is none. `untaken`: the server has certainly not acted. */
  async after(error: GatewayError, untaken: boolean): Promise<void> {
    this.failures += 1;
    const mayHelp = error instanceof UnreachableError || PASSING.has(error.status);
    const asked = error.retryAfterS;
    const askedTooMuch = asked !== undefined && asked > this.patience.maxAskedS;
    if (!mayHelp || askedTooMuch || this.failures >= this.limit || !(this.request.repeatable !== false || untaken)) throw error;
    const grown = Math.min(this.patience.maxPauseMs, this.patience.firstPauseMs * 2 ** Math.min(this.failures - 1, 30));
    const pauseMs = asked === undefined ? grown * (0.5 + Math.random() / 2) : asked * 1000 * (1 + Math.random() / 10);
    await pause(pauseMs, this.request.signal);
  }

  /** Like `after`, for an answer whose status may pass. */
  async refused(answer: Answer): Promise<void> {
    const error = refusal(answer);
    if (!isStarting(answer)) return this.after(error, answer.status === 429);
    const asked = error.retryAfterS ?? START_PAUSE_S;
    const pauseMs = Math.max(asked * 1000 * (1 + Math.random() / 10), this.patience.firstPauseMs);
    if (asked > this.patience.maxAskedS || this.startingMs + pauseMs > this.patience.startingS * 1000) throw error;
    this.startingMs += pauseMs;
    await pause(pauseMs, this.request.signal);
  }
}

export class Wire {
  constructor(
    readonly url: string,
    private readonly headers: Record<string, string>,
    readonly patience: Patience,
    private readonly fetcher: Fetch,
  ) {}

  /** An answer that later tries would not change: 2xx, a run, or a refusal. */
  async ask(request: Request): Promise<Answer> {
    const tries = new Tries(this.patience, request);
    for (;;) {
      let answer: Answer;
      try {
        const opened = await this.once(request);
        answer = opened.answer;
        if (isFine(answer.status)) {
          const decoder = new TextDecoder();
          const pieces: string[] = [];
          for (let piece = await opened.next(); piece !== undefined; piece = await opened.next()) {
            pieces.push(decoder.decode(piece, { stream: true }));
          }
          answer = { ...answer, text: pieces.join("") + decoder.decode() };
        }
      } catch (error) {
        await tries.lost(asLost(error, request.signal));
        continue;
      }
      if (!PASSING.has(answer.status) || maybeRun(answer) !== undefined) return answer;
      await tries.refused(answer);
    }
  }

  /** The head of an answer that later tries would not change; the text of one that is not 2xx is there. */
  async open(request: Request): Promise<Opened> {
    const tries = new Tries(this.patience, request);
    for (;;) {
      let opened: Opened;
      try {
        opened = await this.once(request);
      } catch (error) {
        await tries.lost(asLost(error, request.signal));
        continue;
      }
      if (!PASSING.has(opened.answer.status) || maybeRun(opened.answer) !== undefined) return opened;
      await tries.refused(opened.answer);
    }
  }

  private async once(request: Request): Promise<Opened> {
    request.signal?.throwIfAborted();
    const ender = new AbortController();
    const stop = (): void => ender.abort(request.signal?.reason);
    request.signal?.addEventListener("abort", stop, { once: true });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const listen = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => ender.abort(new Lost(`no answer from ${this.url} in time`, true, true)), request.silenceS * 1000);
    };
    const close = (): void => {
      clearTimeout(timer);
      request.signal?.removeEventListener("abort", stop);
      ender.abort(new Lost("closed", true));
    };
    try {
      listen();
      const body = request.body?.();
      const streams = body instanceof ReadableStream ? { duplex: "half" } : {};
      const response = await this.fetcher(`${this.url}${request.path}`, {
        method: request.method,
        headers: { accept: "application/json", ...this.headers, ...request.headers },
        redirect: "manual",
        signal: ender.signal,
        ...(body === undefined ? {} : { body }),
        ...streams,
      });
      if (!isFine(response.status)) {
        const text = response.type === "opaqueredirect" ? "" : await response.text();
        close();
        return { answer: { status: response.status, headers: response.headers, text }, next: async () => undefined, close };
      }
      const reader = response.body?.getReader();
      const next = async (): Promise<Uint8Array | undefined> => {
        listen();
        try {
          const found = await reader?.read();
          if (found === undefined || found.done) {
            close();
            return undefined;
          }
          return found.value;
        } catch (error) {
          close();
          throw asLost(ender.signal.aborted ? ender.signal.reason : error, request.signal, this.url);
        }
      };
      return { answer: { status: response.status, headers: response.headers, text: "" }, next, close };
    } catch (error) {
      const reason: unknown = ender.signal.aborted ? ender.signal.reason : error;
      close();
      throw asLost(reason, request.signal, this.url);
    }
  }
}

/** What `fetch` threw, as a loss; the caller's own abort is thrown on as it is. */
function asLost(error: unknown, signal: AbortSignal | undefined, url = ""): Lost {
  if (signal?.aborted) throw signal.reason;
  if (error instanceof Lost) return error;
  if (error instanceof ClientError) throw error;
  const cause = (error as { cause?: { code?: string; message?: string } } | undefined)?.cause;
  if (!(error instanceof TypeError) && cause === undefined) throw error;
  const why = cause?.code ?? cause?.message ?? String(error);
  const sent = !NEVER_SENT.has(cause?.code ?? "") && cause?.message !== "bad port";
  return new Lost(sent ? `the connection to ${url} broke: ${why}` : `no server answers at ${url}: ${why}`, sent);
}

function isFine(status: number): boolean {
  return status >= 200 && status < 300;
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

