/** What an HTTP answer means: a run, whichever of the two servers made it, or an error. */
import {
  AuthenticationError,
  GatewayError,
  InvalidRequestError,
  NotFoundError,
  OverloadedError,
  RunCanceledError,
  RunError,
  RunExpiredError,
  RunFailedError,
} from "./errors.js";
import type { FieldError, Run, RunFile, RunProblem } from "./values.js";

/** A whole answer. */
export interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

interface Problem {
  detail?: string;
  title?: string;
  code?: string;
  error?: string | null;
  hint?: string | null;
  run_id?: string | null;
  errors?: FieldError[];
}

/** The runner contract's body. */
interface RunnerAnswer {
  run_id: string;
  success: boolean;
  output?: unknown;
  outputs?: unknown[] | null;
  error_type?: string;
  safe_message?: string;
  error_message?: string;
  code?: string;
  retryable?: boolean;
  errors?: FieldError[];
  warnings?: FieldError[];
  files?: RunFile[];
  timing_ms?: Record<string, number>;
}

function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const found: unknown = JSON.parse(text);
    return typeof found === "object" && found !== null && !Array.isArray(found) ? (found as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** The run that an answer shows, undefined where it shows none. A run that failed has the status of its error. */
export function maybeRun(answer: Answer): Run | undefined {
  const found = jsonObject(answer.text);
  if (found === undefined) return undefined;
  if (typeof found["id"] === "string" && typeof found["status"] === "string") return found as unknown as Run;
  if (typeof found["run_id"] === "string" && found["run_id"] !== "" && typeof found["success"] === "boolean") {
    return ofRunner(found as unknown as RunnerAnswer, answer.status);
  }
  return undefined;
}

/** The run that an answer shows; `GatewayError` where it shows none. */
export function runIn(answer: Answer): Run {
  const run = maybeRun(answer);
  if (run !== undefined) return run;
  throw answer.status >= 200 && answer.status < 300 ? unexpected(answer, "a run") : refusal(answer);
}

function ofRunner(told: RunnerAnswer, status: number): Run {
  const text = told.safe_message || told.error_message || "";
  const error: RunProblem | null = told.success
    ? null
    : {
        code: told.code || told.error_type || "internal",
        detail: text,
        status,
        retryable: told.retryable ?? false,
        errors: told.errors ?? [],
        hint: (told.error_message ?? "").endsWith(text) ? null : (told.error_message ?? null),
      };
  return {
    id: told.run_id,
    status: told.success ? "succeeded" : told.error_type === "canceled" ? "canceled" : "failed",
    output: told.output ?? told.outputs ?? null,
    files: told.files ?? [],
    error,
    warnings: told.warnings ?? [],
    timings: told.timing_ms ?? {},
  };
}

/** How a run ended that did not succeed. */
export function runError(run: Run): RunError {
  const error = run.error ?? { code: run.status, detail: `the run is ${run.status}`, status: 500 };
  const kind =
    run.status === "canceled"
      ? RunCanceledError
      : run.status === "expired" || error.code === "timeout" || error.code === "expired"
        ? RunExpiredError
        : RunFailedError;
  return new kind(error.detail || `the run is ${run.status}`, {
    code: error.code,
    run,
    hint: error.hint ?? undefined,
    errors: error.errors,
    retryable: error.retryable ?? false,
  });
}

/** The error of an answer that is neither 2xx nor a run. */
export function refusal(answer: Answer): GatewayError {
  const problem = problemIn(answer);
  if (problem === undefined || (answer.status >= 300 && answer.status < 400)) return unexpected(answer, "JSON");
  return new (kindOf(answer.status))(problem.detail || problem.title || `the server answered ${answer.status}`, {
    code: problem.code || "unexpected",
    status: answer.status,
    hint: problem.hint ?? undefined,
    runId: problem.run_id ?? undefined,
    errors: problem.errors,
    retryAfterS: retryAfterS(answer.headers),
  });
}

function problemIn(answer: Answer): Problem | undefined {
  const found = jsonObject(answer.text) as Problem | undefined;
  return found && [found.detail, found.code, found.title].some((each) => typeof each === "string" && each) ? found : undefined;
}

/** Whether a path is unknown to the server, rather than the function, run or file that it names: those say `error`, too. */
export function isNoRoute(answer: Answer): boolean {
  const problem = answer.status === 404 ? problemIn(answer) : undefined;
  return problem !== undefined && problem.code === "not_found" && (problem.error ?? null) === null;
}

/** The error of an answer that this client cannot read: of a proxy, a login page, another kind of server. */
export function unexpected(answer: Answer, expected: string): GatewayError {
  const kind = answer.headers.get("content-type") ?? "no content type";
  const said = answer.text.slice(0, 800).split(/\s+/).join(" ").trim().slice(0, 200);
  const where = answer.headers.get("location");
  const redirected = answer.status === 0 || (answer.status >= 300 && answer.status < 400);
  const hint = redirected
    ? `the server redirects${where ? ` to ${where.slice(0, 200)}` : ""}: use that address`
    : answer.status < 500
      ? "is this the address of `cozyctl up` or `cozyctl dev`, or of a proxy in front of it?"
      : undefined;
  return new (kindOf(answer.status))(
    `the server answered ${answer.status} with ${kind}, expected ${expected}${said ? `: ${JSON.stringify(said)}` : ""}`,
    { code: "unexpected_answer", status: answer.status, hint, retryAfterS: retryAfterS(answer.headers) },
  );
}

function kindOf(status: number): typeof GatewayError {
  if (status === 401 || status === 403) return AuthenticationError;
  if (status === 404) return NotFoundError;
  if ([400, 405, 409, 410, 413, 415, 422].includes(status)) return InvalidRequestError;
  return status === 429 || status === 503 ? OverloadedError : GatewayError;
}

/** Whether the server refuses because it is starting. It has not acted on the request, so repeating any request is safe. */
export function isStarting(answer: Answer): boolean {
  return answer.status === 503 && problemIn(answer)?.error === "starting";
}

/** Seconds that a server wants to be left alone (RFC 9110, 10.2.3: seconds, or a date by the server's own clock). */
export function retryAfterS(headers: Headers): number | undefined {
  const text = (headers.get("retry-after") ?? "").trim();
  if (text === "") return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  const then = Date.parse(text);
  if (Number.isNaN(then)) return undefined;
  const now = Date.parse(headers.get("date") ?? "");
  return Math.max(0, (then - (Number.isNaN(now) ? Date.now() : now)) / 1000);
}
