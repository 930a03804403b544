export { Client, RunHandle, type CallOptions, type ClientOptions, type RunOptions, type WaitOptions } from "./client.js";
export * from "./errors.js";
export type { FileOptions, Files } from "./files.js";
export { Session, type SessionEnd, type SessionOptions, type WebSocketClass } from "./session.js";
export { isFinished } from "./values.js";
export type { Asset, FieldError, Run, RunEvent, RunFile, RunProblem, RunStatus } from "./values.js";
export type { Fetch, Patience } from "./wire.js";
