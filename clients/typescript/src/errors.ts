/**
 * What goes wrong for a caller: the server did not take a request (`GatewayError`), or the run that it took ended without a result (`RunError`).
 */
import type { FieldError, Run } from "./values.js";

export interface ErrorFacts {
  code: string;
  hint?: string | undefined;
  runId?: string | undefined;
  errors?: readonly FieldError[] | undefined;
}

/** Base of all errors of this client. `code` is a stable word, `detail` says what happened, `hint` what to do. */
export class ClientError extends Error {
  readonly code: string;
  readonly detail: string;
  readonly hint: string;
  readonly runId: string;
  readonly errors: readonly FieldError[];

  constructor(detail: string, facts: ErrorFacts) {
    const fields = (facts.errors ?? []).map((error) => `\n  ${error.pointer || "/"}: ${error.message}`).join("");
    const run = facts.runId ? ` [run ${facts.runId}]` : "";
    super(`${detail} (${facts.code})${run}${fields}${facts.hint ? `\n  hint: ${facts.hint}` : ""}`);
    this.name = new.target.name;
    this.detail = detail;
    this.code = facts.code;
    this.hint = facts.hint ?? "";
    this.runId = facts.runId ?? "";
    this.errors = facts.errors ?? [];
  }
}

/** The server refused a request, or gave no usable answer. `status` is the HTTP status, 0 without an answer. */
export class GatewayError extends ClientError {
  readonly status: number;
  /** Seconds for which the server asks to be left alone, undefined where it does not say. */
  readonly retryAfterS: number | undefined;

  constructor(detail: string, facts: ErrorFacts & { status?: number; retryAfterS?: number | undefined }) {
    super(detail, facts);
    this.status = facts.status ?? 0;
    this.retryAfterS = facts.retryAfterS;
  }
}

/** No answer came. Whether a request was taken is not known where the connection broke after it was sent. */
export class UnreachableError extends GatewayError {}
/** 401: no key, or one that is not accepted. 403: a key that may not do this. */
export class AuthenticationError extends GatewayError {}
/** 404: there is no such function, tag, run or file. */
export class NotFoundError extends GatewayError {}
/** 400, 409, 413, 422: the request itself is wrong. */
export class InvalidRequestError extends GatewayError {}
/** 429 or 503, after as many tries as this client makes. */
export class OverloadedError extends GatewayError {}
/** Items of a stream cannot be had any more, or a later attempt gave others than those that were delivered. */
export class EventsLostError extends GatewayError {}

/** A run ended without a result. */
export class RunError extends ClientError {
  readonly run: Run;
  readonly retryable: boolean;

  constructor(detail: string, facts: ErrorFacts & { run: Run; retryable?: boolean }) {
    super(detail, { ...facts, runId: facts.run.id });
    this.run = facts.run;
    this.retryable = facts.retryable ?? false;
  }
}

/** The function raised, or the payload does not fit it (`code` is `validation` then). */
export class RunFailedError extends RunError {}
/** The run was cancelled. */
export class RunCanceledError extends RunError {}
/** The run's time was up. */
export class RunExpiredError extends RunError {}

/** A realtime session has ended. `closeCode` and `reason` are those of its websocket; 1006 means that the connection broke. `retryable`: a new session may succeed. */
export class SessionError extends ClientError {
  readonly closeCode: number;
  readonly reason: string;
  readonly retryable: boolean;

  constructor(detail: string, facts: ErrorFacts & { closeCode: number; reason: string; retryable: boolean }) {
    super(detail, facts);
    this.closeCode = facts.closeCode;
    this.reason = facts.reason;
    this.retryable = facts.retryable;
  }
}

/** The result stayed away for as long as the caller wanted to wait. The run goes on. */
export class WaitTimeoutError extends ClientError {}
