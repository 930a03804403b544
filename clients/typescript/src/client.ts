/** The client: run, submit, stream, session. The same decisions as `gen_worker.client` in Python. */
import { type Answer, isNoRoute, runError, runIn, unexpected } from "./answers.js";
import { ClientError, NotFoundError, RunError, UnreachableError, WaitTimeoutError } from "./errors.js";
import { Files } from "./files.js";
import { NDJSON, SILENCE_S, follow, items, openEvents } from "./following.js";
import { type Session, type SessionOptions, type WebSocketClass, openSession } from "./session.js";
import { type Run, type RunEvent, isFinished } from "./values.js";
import { type Fetch, type Opened, PATIENCE, type Patience, Wire } from "./wire.js";

const DEFAULT_URL = "http://127.0.0.1:8080"; // of `cozyctl up`
const WAIT_S = 20;
const SLACK_S = 30;

export interface ClientOptions {
  /** The platform or dev runner; by default COZY_URL, then http://127.0.0.1:8080. */
  url?: string | undefined;
  /** By default COZY_API_KEY. */
  key?: string | undefined;
  patience?: Partial<Patience> | undefined;
  /** In the place of the global `fetch`. */
  fetch?: Fetch | undefined;
  /** In the place of the global `WebSocket`, for sessions. Node has one from version 22 on. */
  WebSocket?: WebSocketClass | undefined;
}

/** Options of a call. A dev runner knows `timeoutS` alone, and leaves the others out. */
export interface CallOptions {
  /** The run is ended after so many seconds. */
  timeoutS?: number | undefined;
  /** It expires where it has not begun by then. */
  startTimeoutS?: number | undefined;
  priority?: "high" | "normal" | "low" | undefined;
  webhook?: string | undefined;
  webhookEvents?: string[] | undefined;
  /** The same key and call give the same run. One is made where none is given; "" sends none, and then a create that broke is not sent again. */
  idempotencyKey?: string | undefined;
  /** Ends the waiting; in `run` and `stream` it cancels the run, too. */
  signal?: AbortSignal | undefined;
}

/** Options of `run`. */
export interface RunOptions extends CallOptions {
  /** Shown each event as it comes: status, progress, log, items. What it throws cancels the run. */
  onEvent?: ((event: RunEvent) => void) | undefined;
}

interface Target {
  name: string;
  platformPath: string;
  runnerPath: string;
}

interface Begun {
  target: Target;
  payload: unknown;
  options: CallOptions;
  key: string;
  runId: string;
  sent: boolean;
}

export class Client {
  readonly url: string;
  readonly files: Files;
  /** @internal */
  readonly wire: Wire;
  private isRunner = false;
  private readonly key: string;
  private readonly socketClass: WebSocketClass | undefined;

  constructor(options: ClientOptions | string = {}) {
    const given = typeof options === "string" ? { url: options } : options;
    const env = typeof process === "undefined" ? {} : (process.env ?? {});
    this.url = checkedUrl(given.url ?? (env["COZY_URL"] || DEFAULT_URL));
    const key = given.key ?? env["COZY_API_KEY"] ?? "";
    const headers: Record<string, string> = key ? { authorization: `Bearer ${key}` } : {};
    this.wire = new Wire(this.url, headers, { ...PATIENCE, ...given.patience }, given.fetch ?? ((input: string, init?: RequestInit) => fetch(input, init)));
    this.files = new Files(this.wire);
    this.key = key;
    this.socketClass = given.WebSocket ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  }

  /** Run a function and wait for its output; of a function that streams, the list of its items. Aborting `signal` cancels the run. */
  async run<Output = unknown>(ref: string, payload: object = {}, options: RunOptions = {}): Promise<Output> {
    const begun = begin(ref, payload, options);
    try {
      const run = options.onEvent ? await this.watched(begun, options.onEvent) : await this.create(begun, WAIT_S, options.signal);
      return (await this.resultOf(run, options.signal)) as Output;
    } catch (error) {
      if (!(error instanceof ClientError)) await this.leave(begun);
      throw error;
    }
  }

  /** Start a run and do not wait: it goes on whatever becomes of this program. */
  async submit<Output = unknown>(ref: string, payload: object = {}, options: CallOptions = {}): Promise<RunHandle<Output>> {
    const run = await this.create(begin(ref, payload, options), 0, options.signal);
    return new RunHandle<Output>(this, run.id);
  }

  /** A run that was started before, by its id. Nothing is asked yet. */
  handle<Output = unknown>(runId: string): RunHandle<Output> {
    return new RunHandle<Output>(this, runId);
  }

  /** Run a function that streams, and iterate over its items as they come. Leaving the loop, or aborting `signal`, cancels the run. */
  async *stream<Item = unknown>(ref: string, payload: object = {}, options: CallOptions = {}): AsyncGenerator<Item, void, void> {
    const begun = begin(ref, payload, options);
    let over = false;
    try {
      yield* items<Item>(this.callEvents(begun));
      over = true;
    } catch (error) {
      over = error instanceof RunError || error instanceof UnreachableError; // it ended by itself, or nobody can be told
      throw error;
    } finally {
      if (!over) await this.leave(begun);
    }
  }

  /** Open a realtime session with a websocket handler. Close it, or leave the loop over its messages: either ends the session and with it its run. */
  async session(ref: string, options: SessionOptions = {}): Promise<Session> {
    const target = readTarget(ref);
    const places = [...(target.platformPath && !this.isRunner ? [target.platformPath] : []), target.runnerPath.replace("/v1/run/", "/v1/realtime/")];
    const query = (place: number): Record<string, string> => sessionQuery(options, place === places.length - 1);
    const [session, place] = await openSession(this.wire, places, query, this.key, options, this.socketClass);
    this.isRunner ||= place === places.length - 1;
    return session;
  }

  /** @internal */
  async get(runId: string, waitS: number, signal: AbortSignal | undefined): Promise<Run> {
    const path = `/v1/runs/${encodeURIComponent(runId)}${waitS ? `?wait=${waitS}` : ""}`;
    return runIn(await this.wire.ask({ method: "GET", path, silenceS: waitS + SLACK_S, signal, following: true }));
  }

  /** @internal */
  async cancel(runId: string, signal?: AbortSignal): Promise<Run> {
    return runIn(await this.wire.ask({ method: "POST", path: `/v1/runs/${encodeURIComponent(runId)}/cancel`, silenceS: SLACK_S, signal }));
  }

  /** @internal */
  async resultOf(run: Run, signal: AbortSignal | undefined): Promise<unknown> {
    while (!isFinished(run)) run = await this.get(run.id, WAIT_S, signal);
    if (run.status !== "succeeded") throw runError(run);
    if (run.output !== null && run.output !== undefined) return run.output;
    const gathered: unknown[] = [];
    for await (const item of items(follow(this.wire, run.id, await openEvents(this.wire, run.id, "", signal), "", signal))) gathered.push(item);
    return gathered;
  }

  private async watched(begun: Begun, onEvent: (event: RunEvent) => void): Promise<Run> {
    let run: Run | undefined;
    for await (const event of this.callEvents(begun)) {
      onEvent(event);
      if (event.name === "done") run = event.data as Run;
    }
    return run ?? this.get(begun.runId, WAIT_S, begun.options.signal);
  }

  private async *callEvents(begun: Begun): AsyncGenerator<RunEvent, void, void> {
    const { signal } = begun.options;
    const opened = await this.toFunction(begun, { accept: NDJSON }, SILENCE_S, signal, (request) => this.wire.open(request));
    begun.runId = opened.answer.headers.get("x-run-id") ?? "";
    yield* follow(this.wire, begun.runId, opened, "", signal);
  }

  private async create(begun: Begun, waitS: number, signal: AbortSignal | undefined): Promise<Run> {
    const prefer = waitS ? `respond-async, wait=${waitS}` : "respond-async";
    const { answer } = await this.toFunction(begun, { prefer }, waitS + SLACK_S, signal, async (request) => ({ answer: await this.wire.ask(request) }));
    const run = runIn(answer);
    begun.runId = run.id;
    return run;
  }

  /** POST a call where its function is: at the platform's path, or at a dev runner's, whose functions have no owner. */
  private async toFunction<Got extends { answer: Answer }>(
    begun: Begun,
    headers: Record<string, string>,
    silenceS: number,
    signal: AbortSignal | undefined,
    asked: (request: Parameters<Wire["ask"]>[0]) => Promise<Got>,
  ): Promise<Got> {
    const keyed = { "content-type": "application/json", ...headers, ...(begun.key ? { "idempotency-key": begun.key } : {}) };
    const post = (path: string, body: string): Promise<Got> =>
      asked({ method: "POST", path, headers: keyed, body: () => body, silenceS, signal, repeatable: begun.key !== "" });
    begun.sent = true;
    if (begun.target.platformPath && !this.isRunner) {
      const got = await post(begun.target.platformPath, platformBody(begun));
      if (!isNoRoute(got.answer)) return got;
    }
    const got = await post(begun.target.runnerPath, runnerBody(begun));
    if (isNoRoute(got.answer)) throw this.noFunction(got.answer, begun);
    this.isRunner = true;
    return got;
  }

  private noFunction(answer: Answer, begun: Begun): ClientError {
    if (begun.target.platformPath) return unexpected(answer, "a platform or a dev runner");
    const hint = "a platform expects owner/endpoint/function[:tag]; only `cozyctl dev` accepts a bare name";
    return new NotFoundError(`this server has no function '${begun.target.name}'`, { code: "not_found", status: 404, hint });
  }

  /** Whoever waited for a run is gone: end it, as well as that can be done. Its id is learned by sending the create again. */
  private async leave(begun: Begun): Promise<void> {
    try {
      if (!begun.runId && begun.sent && begun.key) await this.create(begun, 0, undefined);
      if (begun.runId) await this.cancel(begun.runId);
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
    }
  }
}

export interface WaitOptions {
  /** Whole seconds after which `WaitTimeoutError` is thrown; the run goes on. */
  waitS?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** A run on the server. `id` finds it again, from any program: `client.handle(id)`. */
export class RunHandle<Output = unknown> {
  constructor(
    private readonly client: Client,
    readonly id: string,
  ) {}

  /** The run as it stands now. */
  async status(options: { signal?: AbortSignal } = {}): Promise<Run<Output>> {
    return (await this.client.get(this.id, 0, options.signal)) as Run<Output>;
  }

  /** Its events to its end, as they come: those kept from the beginning, or after the event `after`. Leaving the loop leaves the run alone. */
  async *events(options: { after?: string; signal?: AbortSignal } = {}): AsyncGenerator<RunEvent, void, void> {
    const after = options.after ?? "";
    const opened: Opened = await openEvents(this.client.wire, this.id, after, options.signal);
    yield* follow(this.client.wire, this.id, opened, after, options.signal);
  }

  /** What the function streams, from the first item on. */
  async *items<Item = unknown>(options: { signal?: AbortSignal } = {}): AsyncGenerator<Item, void, void> {
    yield* items<Item>(this.events(options));
  }

  /** The output, waited for. */
  async result(options: WaitOptions = {}): Promise<Output> {
    let left = options.waitS ?? Infinity;
    let run: Run;
    do {
      const once = Math.min(left, WAIT_S);
      run = await this.client.get(this.id, once, options.signal);
      left -= once;
    } while (!isFinished(run) && left > 0);
    if (!isFinished(run)) {
      throw new WaitTimeoutError(`run ${this.id} is still ${run.status} after ${options.waitS} s; it continues`, { code: "wait_timeout", runId: this.id });
    }
    return (await this.client.resultOf(run, options.signal)) as Output;
  }

  /** End the run; the run as it is then. One that is over stays as it is. */
  async cancel(options: { signal?: AbortSignal } = {}): Promise<Run<Output>> {
    return (await this.client.cancel(this.id, options.signal)) as Run<Output>;
  }
}

function begin(ref: string, payload: object, options: CallOptions): Begun {
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) throw new TypeError("the payload: expected an object");
  const key = options.idempotencyKey ?? crypto.randomUUID();
  if (!/^[\x20-\x7e]{0,255}$/.test(key)) throw new TypeError("idempotencyKey: expected at most 255 printable ASCII characters");
  return { target: readTarget(ref), payload, options, key, runId: "", sent: false };
}

function readTarget(ref: string): Target {
  const [, name = "", mark = "", rest = ""] = /^([^:@]*)([:@]?)(.*)$/s.exec(ref) ?? [];
  const parts = name.split("/");
  if ((parts.length !== 1 && parts.length !== 3) || parts.some((part) => part === "") || (mark !== "" && rest === "")) {
    throw new TypeError(`${JSON.stringify(ref.slice(0, 200))}: expected owner/endpoint/function[:tag], such as 'local/hello/generate', or a function of a dev runner`);
  }
  const encoded = parts.map(encodeURIComponent);
  const suffix = mark ? mark + encodeURIComponent(rest) : "";
  return {
    name: ref,
    platformPath: parts.length === 3 ? `/v1/${encoded.join("/")}${suffix}` : "",
    runnerPath: `/v1/run/${encoded[encoded.length - 1] ?? ""}`,
  };
}

function platformBody({ payload, options }: Begun): string {
  return JSON.stringify({
    payload,
    timeout_s: options.timeoutS,
    start_timeout_s: options.startTimeoutS,
    priority: options.priority,
    webhook: options.webhook,
    webhook_events: options.webhookEvents,
  });
}

function sessionQuery(options: SessionOptions, isRunner: boolean): Record<string, string> {
  const milliseconds = (seconds: number): string => String(Math.max(1, Math.round(seconds * 1000)));
  return {
    ...(options.timeoutS === undefined ? {} : { timeout_ms: milliseconds(options.timeoutS) }),
    ...(options.startTimeoutS === undefined || isRunner ? {} : { start_timeout_ms: milliseconds(options.startTimeoutS) }),
    ...(options.priority === undefined || isRunner ? {} : { priority: options.priority }),
  };
}

function runnerBody({ payload, options }: Begun): string {
  const timeout = options.timeoutS === undefined ? undefined : Math.max(1, Math.round(options.timeoutS * 1000));
  // A stream that breaks is taken up again, so its end must not be the run's.
  return JSON.stringify({ payload, cancel_on_disconnect: false, timeout_ms: timeout });
}

function checkedUrl(url: string): string {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new TypeError(`url ${JSON.stringify(url.slice(0, 200))}: expected http://HOST[:PORT] or https://HOST[:PORT]`);
  }
  if (!/^https?:$/.test(parsed.protocol) || parsed.search || parsed.hash) throw new TypeError("url: expected http://HOST[:PORT] or https://HOST[:PORT]");
  if (parsed.username || parsed.password) throw new TypeError("url: it holds a user name; give the key by key, or COZY_API_KEY");
  return url.replace(/\/+$/, "");
}

declare const process: { env?: Record<string, string | undefined> } | undefined;
