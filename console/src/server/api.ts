// Requests to the server that sent this page. Every failure is a `Trouble` with words for a person.

import { parseExact } from "../schema/exact";

export interface FieldProblem {
  pointer: string;
  message: string;
  expected?: string;
  got?: string;
  suggestion?: string;
}

export interface Problem {
  title?: string;
  detail?: string;
  code?: string;
  status?: number;
  hint?: string;
  retryable?: boolean;
  errors?: FieldProblem[];
}

export class Trouble extends Error {
  constructor(
    readonly problem: Problem,
    /** Whether no answer came at all. */
    readonly isDown = false,
  ) {
    super(problem.detail || problem.title || "the request failed");
  }
}

export const IS_PLATFORM = document.documentElement.dataset.server === "platform";
const COMMAND = IS_PLATFORM ? "cozyctl up" : "cozyctl dev";
const KEY = "console.key";

let key = sessionStorage.getItem(KEY) ?? "";

/** The key of this tab. It is kept as long as the tab, and sent to this server alone. */
export function currentKey(): string {
  return key;
}

export function keepKey(text: string): void {
  key = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

export function headersWithKey(headers: Record<string, string> = {}): Record<string, string> {
  return key ? { ...headers, authorization: `Bearer ${key}` } : headers;
}

interface Ask {
  method?: string;
  json?: unknown;
  body?: BodyInit;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The response of a request that was answered well; throws `Trouble`. */
export async function ask(path: string, { method = "GET", json, body, headers = {}, signal }: Ask = {}): Promise<Response> {
  const sent = headersWithKey(json === undefined ? headers : { "content-type": "application/json", ...headers });
  let response: Response;
  try {
    response = await fetch(path, { method, body: json === undefined ? body : JSON.stringify(json), headers: sent, signal, cache: "no-store" });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Trouble(downProblem(), true);
  }
  if (response.ok) return response;
  throw new Trouble(await problemOf(response));
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, { signal });
  try {
    return parseExact(await response.text()) as T;
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Trouble(downProblem(), true); // the answer was cut off
  }
}

export async function send<T>(method: string, path: string, json?: unknown): Promise<T> {
  return (await (await ask(path, { method, json })).json()) as T;
}

async function problemOf(response: Response): Promise<Problem> {
  const status = response.status;
  try {
    const found = (await response.json()) as Problem & { safe_message?: string; error_message?: string; error?: Problem | string };
    // A failed run is answered with the run: its `error` is the problem.
    if (typeof found.error === "object" && found.error) return { status, ...found.error };
    return { status, ...found, detail: found.detail ?? found.safe_message ?? found.error_message };
  } catch {
    return { status, title: `the server answered ${status} ${response.statusText}`.trim() };
  }
}

export function downProblem(): Problem {
  return {
    title: "the server does not answer",
    detail: `${location.origin} does not answer. It has stopped, or the network is down.`,
    hint: `Start it with: ${COMMAND}`,
    code: "down",
  };
}
