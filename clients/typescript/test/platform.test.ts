/** Against a real server: `cozyctl up` or `cozyctl dev` at COZY_TEST_URL, serving the probe project of the tests. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import {
  Client,
  InvalidRequestError,
  NotFoundError,
  RunCanceledError,
  RunExpiredError,
  RunFailedError,
  UnreachableError,
  WaitTimeoutError,
} from "../src/index.js";

const url = process.env["COZY_TEST_URL"] ?? "";
const options = { skip: url === "" ? "COZY_TEST_URL names no server" : false };
const client = url ? new Client({ url }) : new Client();
const REF = "local/probe/";

interface Counted {
  number: number;
}

test("run gives the output", options, async () => {
  assert.equal((await client.run<{ text: string }>(REF + "echo", { text: "ä\u2028" })).text, "ä\u2028");
  assert.deepEqual(await client.run(REF + "count", { times: 3 }), [{ number: 0 }, { number: 1 }, { number: 2 }]);
  assert.deepEqual(await client.run(REF + "count", { times: 0 }), []);
});

test("run shows events on its way", options, async () => {
  const names: string[] = [];
  const out = await client.run<{ text: string }>(REF + "progress", { times: 3 }, { onEvent: (event) => names.push(event.name) });
  assert.equal(out.text, "done");
  assert.equal(names.filter((name) => name === "progress").length, 3);
  assert.equal(names.at(-1), "done");
});

test("submit gives a handle with status, events, result, cancel", options, async () => {
  const handle = await client.submit<{ text: string }>(REF + "progress", { times: 3 });
  const names: string[] = [];
  for await (const event of handle.events()) names.push(event.name);
  assert.equal(names.filter((name) => name === "progress").length, 3);
  assert.equal(names.at(-1), "done");
  assert.equal((await handle.result()).text, "done");
  assert.equal((await handle.status()).status, "succeeded");
  assert.equal((await handle.cancel()).status, "succeeded");
  const slow = await client.submit(REF + "sleep", { seconds: 60 });
  await assert.rejects(slow.result({ waitS: 0 }), WaitTimeoutError);
  assert.equal((await slow.cancel()).status, "canceled");
  await assert.rejects(slow.result(), RunCanceledError);
});

test("events go on after one that was seen", options, async () => {
  const handle = await client.submit(REF + "count", { times: 20 });
  const outputs = [];
  for await (const event of handle.events()) if (event.name === "output") outputs.push(event);
  assert.equal(outputs.length, 20);
  const rest = [];
  for await (const event of handle.events({ after: outputs[9]?.id ?? "" })) if (event.name === "output") rest.push((event.data as Counted).number);
  assert.deepEqual(rest, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
});

test("stream gives items; leaving it or aborting cancels the run", options, async () => {
  const numbers = [];
  for await (const item of client.stream<Counted>(REF + "count", { times: 4 })) numbers.push(item.number);
  assert.deepEqual(numbers, [0, 1, 2, 3]);
  const keys = ["left", "aborted"];
  for (const key of keys) {
    const ender = new AbortController();
    const call = { idempotencyKey: `ts-${key}-${crypto.randomUUID()}`, signal: ender.signal };
    try {
      for await (const _ of client.stream(REF + "words", { times: 100_000, seconds: 0.01 }, call)) {
        if (key === "left") break;
        ender.abort(new Error("enough"));
      }
    } catch (error) {
      assert.equal((error as Error).message, "enough");
    }
    const same = await client.submit(REF + "words", { times: 100_000, seconds: 0.01 }, { idempotencyKey: call.idempotencyKey });
    await assert.rejects(same.result(), RunCanceledError);
  }
});

test("aborting run cancels it", options, async () => {
  const ender = new AbortController();
  const call = { idempotencyKey: `ts-run-${crypto.randomUUID()}` };
  const waiting = client.run(REF + "sleep", { seconds: 300 }, { ...call, signal: ender.signal });
  const same = await client.submit(REF + "sleep", { seconds: 300 }, call);
  ender.abort(new Error("no more"));
  await assert.rejects(waiting, /no more/);
  await assert.rejects(same.result(), RunCanceledError);
});

test("a function's error is no fault of the gateway", options, async () => {
  await assert.rejects(client.run(REF + "refuse"), (error) => {
    assert.ok(error instanceof RunFailedError);
    assert.deepEqual([error.code, error.run.status], ["validation", "failed"]);
    return /text is empty/.test(error.message);
  });
  await assert.rejects(client.run(REF + "echo", { text: 5 }), (error) => error instanceof RunFailedError && error.errors[0]?.pointer === "/text");
  await assert.rejects(client.run(REF + "sleep", { seconds: 60 }, { timeoutS: 0.2 }), RunExpiredError);
  await assert.rejects(client.run(REF + "ech"), NotFoundError);
  await assert.rejects(client.run("nothing"), NotFoundError);
  await assert.rejects(client.handle("none").status(), NotFoundError);
  await client.submit(REF + "echo", { text: "a" }, { idempotencyKey: `ts-once-${process.pid}` });
  await assert.rejects(client.submit(REF + "echo", { text: "b" }, { idempotencyKey: `ts-once-${process.pid}` }), InvalidRequestError);
});

test("files go both ways", options, async () => {
  const told: number[] = [];
  const asset = await client.files.upload(new TextEncoder().encode("in a file ".repeat(100_000)), "uploads/ts ä.txt", {
    onProgress: (done, total) => told.push(done, total),
  });
  assert.deepEqual(told.slice(-2), [1_000_000, 1_000_000]);
  const found = await client.run<{ texts: string[] }>(REF + "read", { image: asset });
  assert.equal(found.texts[0], "in a file ".repeat(100_000));
  const handle = await client.submit(REF + "save", { text: "kept" });
  await handle.result();
  const file = (await handle.status()).files?.[0];
  assert.ok(file);
  assert.equal(new TextDecoder().decode(await client.files.download(file)), "kept");
  await assert.rejects(client.files.download("runs/none/outputs/x.png"), NotFoundError);
});

test("many runs at once", options, async () => {
  const found = await Promise.all(Array.from({ length: 100 }, (_, number) => client.run<{ text: string }>(REF + "echo", { text: String(number) })));
  assert.deepEqual(found.map((each) => each.text), Array.from({ length: 100 }, (_, number) => String(number)));
});

test("a server that is not there", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const lost = new Client({ url: `http://127.0.0.1:${port}`, patience: { firstPauseMs: 1 } });
  await assert.rejects(lost.run("a/b/c"), (error) => error instanceof UnreachableError && /ECONNREFUSED/.test(error.message));
});
