/** Servers and proxies that misbehave: what is sent again, what is not, and what callers are told. */
import assert from "node:assert/strict";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { Client, EventsLostError, GatewayError, OverloadedError, RunFailedError, UnreachableError } from "../src/index.js";

type Line = (request: IncomingMessage, response: ServerResponse) => void;

const RUN = { id: "r1", status: "succeeded", output: { text: "ä" } };
const DONE = { event: "done", data: { ...RUN, output: null } };
const HTML = "<html><h1>502 Bad Gateway</h1></html>";
const BUSY = { detail: "1000 runs are waiting", code: "overloaded", title: "x" };
const REF = "me/e/f";
let script: Line[] = [];
let seen: { method: string; url: string; headers: IncomingMessage["headers"]; body: string }[] = [];
let client: Client;

const server = createServer((request, response) => {
  const pieces: Buffer[] = [];
  request.on("data", (piece: Buffer) => pieces.push(piece));
  request.on("end", () => {
    seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body: Buffer.concat(pieces).toString() });
    (script.shift() ?? says(599, "the script is over"))(request, response);
  });
});

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const patience = { firstPauseMs: 1, maxPauseMs: 2, asking: 4, following: 6 };
  client = new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, patience });
});
after(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  script = [];
  seen = [];
});

function says(status: number, body: unknown, headers: Record<string, string> = {}): Line {
  return (_, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
}

const cuts: Line = (request) => request.socket.destroy();
const half: Line = (request, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
  response.write('{"id": "r1", "sta', () => request.socket.destroy());
};

function streams(...lines: unknown[]): Line {
  return (_, response) => {
    response.writeHead(200, { "content-type": "application/x-ndjson", "x-run-id": "r1" });
    for (const line of lines) response.write(typeof line === "string" ? line : `${JSON.stringify(line)}\n`);
    response.end();
  };
}

function item(id: string, data: unknown): unknown {
  return { id, event: "output", data };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found = [];
  for await (const each of items) found.push(each);
  return found;
}

test("a request that broke is sent again under its key", async () => {
  for (const faults of [
    [says(429, BUSY, { "retry-after": "0" })],
    [says(502, HTML, { "content-type": "text/html" }), says(504, "")],
    [says(500, { error_type: "internal", run_id: "", success: false })],
    [cuts, half, cuts],
  ]) {
    seen = [];
    script = [...faults, says(200, RUN)];
    assert.deepEqual(await client.run(REF, { a: 1 }), { text: "ä" });
    assert.equal(new Set(seen.map((each) => each.headers["idempotency-key"])).size, 1);
    assert.equal(new Set(seen.map((each) => each.body)).size, 1);
  }
});

test("a server that is starting is waited for, also without a key, but not without end", async () => {
  const starting = says(503, { detail: "the platform is starting", code: "not_ready", error: "starting" }, { "retry-after": "0" });
  script = [...Array.from({ length: 20 }, () => starting), says(200, RUN)];
  assert.deepEqual(await client.run(REF, {}, { idempotencyKey: "" }), { text: "ä" });
  const soon = new Client({ url: client.url, patience: { firstPauseMs: 10, startingS: 0.05 } });
  script = Array.from({ length: 20 }, () => starting);
  await assert.rejects(soon.run(REF), (error) => error instanceof OverloadedError && error.code === "not_ready");
});

test("without a key a create that broke is not sent again", async () => {
  script = [says(429, BUSY, { "retry-after": "0" }), cuts];
  await assert.rejects(client.run(REF, {}, { idempotencyKey: "" }), UnreachableError);
  assert.equal(seen.length, 2);
});

test("a function's error is not sent again", async () => {
  script = [says(503, { ...RUN, status: "failed", error: { code: "retryable", detail: "not yet", status: 503, retryable: true } })];
  await assert.rejects(client.run(REF), (error) => error instanceof RunFailedError && error.retryable);
  assert.equal(seen.length, 1);
});

test("tries end with what the server said last, and an hour is not waited for", async () => {
  script = Array.from({ length: 4 }, () => says(429, BUSY, { "retry-after": "0" }));
  await assert.rejects(client.run(REF), (error) => error instanceof OverloadedError && error.code === "overloaded");
  script = [says(429, BUSY, { "retry-after": "3600" })];
  await assert.rejects(client.run(REF), (error) => error instanceof OverloadedError && error.retryAfterS === 3600);
});

test("an answer that is none of ours is shown", async () => {
  for (const [line, words] of [
    [says(200, "<html>Sign in</html>", { "content-type": "text/html" }), /200 with text\/html, expected a run.*Sign in/],
    [says(200, ""), /expected a run/],
    [says(301, "", { location: "https://other.example/" }), /redirects to https:\/\/other.example/],
    [says(404, "Not Found", { "content-type": "text/plain" }), /404/],
  ] as [Line, RegExp][]) {
    script = [line];
    await assert.rejects(client.run(REF), (error) => error instanceof GatewayError && error.code === "unexpected_answer" && words.test(error.message));
  }
});

test("a stream is taken up where it broke", async () => {
  script = [streams(item("1-1", 0), "\n", item("1-2", 1), '{"id":"1-3","ev'), cuts, streams(item("1-3", 2), "no event\n"), streams(item("1-4", "ä"), DONE)];
  assert.deepEqual(await all(client.stream(REF)), [0, 1, 2, "ä"]);
  assert.deepEqual(seen.map((each) => each.headers["last-event-id"]), [undefined, "1-2", "1-2", "1-3"]);
});

test("another attempt repeats what was given, or the stream ends", async () => {
  const again = { event: "restart", data: { attempt: 2 } };
  script = [streams(item("1-1", 0), again, item("2-1", 0), item("2-2", 1), DONE)];
  assert.deepEqual(await all(client.stream(REF)), [0, 1]);
  script = [streams(item("1-1", 0), again, item("2-1", 7), DONE), says(200, { ...RUN, status: "canceled" })];
  await assert.rejects(all(client.stream(REF)), EventsLostError);
  assert.equal(seen.at(-1)?.url, "/v1/runs/r1/cancel");
});

test("wrong arguments are told before anything is sent", async () => {
  for (const ref of ["", "a/b", "a//c", "a/b/c:"]) await assert.rejects(client.run(ref), TypeError);
  await assert.rejects(client.run(REF, [] as unknown as object), TypeError);
  assert.throws(() => new Client("ftp://x"), TypeError);
  assert.throws(() => new Client("http://me:secret@x"), (error) => error instanceof TypeError && !error.message.includes("secret"));
  assert.equal(seen.length, 0);
});
