/** Sessions against a real server: `cozyctl up` or `cozyctl dev` at COZY_TEST_SESSIONS_URL, serving the realtime project of the tests. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, GatewayError, NotFoundError, SessionError, UnreachableError } from "../src/index.js";

const url = process.env["COZY_TEST_SESSIONS_URL"] ?? "";
const options = { skip: url === "" ? "COZY_TEST_SESSIONS_URL names no server" : false };
const client = url ? new Client({ url }) : new Client();
const REF = "local/demo/mirror";

test("a session sends and receives text, bytes and JSON", options, async () => {
  const session = await client.session(REF, { timeoutS: 60, priority: "high" });
  await session.send("ä\u2028");
  assert.deepEqual(await session.receive(), new TextEncoder().encode("ä\u2028"));
  await session.send(new Uint8Array([0, 255]));
  assert.deepEqual(await session.receive(), new Uint8Array([0, 255]));
  await session.sendJson({ a: [1, null] });
  assert.deepEqual(await session.receiveJson<{ a: unknown[] }>(), { a: [1, null] });
  const large = new Uint8Array(3 << 20).fill(7);
  await session.send(large);
  assert.deepEqual(await session.receive(), large);
  await assert.rejects(session.send(new Uint8Array(17 << 20)), RangeError);
  await session.close();
  assert.deepEqual(session.ended, { code: 1000, reason: "" });
  await assert.rejects(session.send("late"), SessionError);
  await client.handle(session.id).result({ waitS: 60 }); // it is a run, which succeeded
});

test("the loop ends with the session, and leaving it ends the session", options, async () => {
  const session = await client.session(REF);
  for (let n = 0; n < 500; n += 1) await session.send(String(n));
  await session.send("close");
  const got: string[] = [];
  for await (const message of session) got.push(new TextDecoder().decode(message as Uint8Array));
  assert.deepEqual(got, Array.from({ length: 500 }, (_, n) => String(n)));
  assert.deepEqual(await session.closed, { code: 1000, reason: "closed" });
  const left = await client.session(REF);
  await left.send("x");
  for await (const _ of left) break;
  assert.equal((await left.closed).code, 1000);
});

test("a session that fails is an error with its close code", options, async () => {
  const session = await client.session(REF);
  await session.send("fail");
  await assert.rejects(
    async () => {
      for await (const _ of session);
    },
    (error: unknown) => error instanceof SessionError && error.closeCode === 1011 && error.reason === "error:ValueError" && error.runId === session.id && !error.retryable,
  );
});

test("aborting the signal ends the session", options, async () => {
  const ender = new AbortController();
  const session = await client.session(REF, { signal: ender.signal });
  const waiting = session.receive();
  ender.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await session.closed;
  await assert.rejects(client.session(REF, { signal: ender.signal }), /enough/);
});

test("refusals are those of calls", options, async () => {
  await assert.rejects(client.session("local/demo/mirrow"), (error: unknown) => error instanceof NotFoundError && /mirror/.test(error.message));
  await assert.rejects(client.session("local/demo/echo"), GatewayError);
  const nobody = new Client({ url: "http://127.0.0.1:9", patience: { asking: 1 } });
  await assert.rejects(nobody.session("a/b/c"), UnreachableError);
});
