"use strict";
// Try functions of all tags, and watch runs. Everything here goes through the public API; texts are set as texts, never as HTML.
const $ = (id) => document.getElementById(id);
let api = { paths: {}, components: { schemas: {} } }, path = "", current = "", open = "";

const make = (tag, text, attributes = {}) => Object.assign(document.createElement(tag), { textContent: text, ...attributes });
const pretty = (value) => JSON.stringify(value, null, 2);
const follow = (schema) => { while (schema && schema.$ref) schema = api.components.schemas[schema.$ref.split("/").pop()]; return schema || {}; };

function example(schema, depth = 0) {
  schema = follow(schema);
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return example(schema.anyOf[0], depth);
  if (schema.type === "object" && depth < 5) {
    const names = depth ? schema.required || [] : Object.keys(schema.properties || {});
    return Object.fromEntries(names.map((name) => [name, example(schema.properties[name], depth + 1)]));
  }
  return { string: "hello", integer: 1, number: 1, boolean: false, array: [] }[schema.type] ?? null;
}

function payloadSchema(of) {
  return follow(api.paths[of].post.requestBody.content["application/json"].schema).properties.payload;
}

function choose(of) {
  path = of;
  for (const button of $("functions").children) button.toggleAttribute("aria-current", button.dataset.path === of);
  $("work").hidden = false;
  $("name").textContent = of.slice("/v1/".length);
  $("payload").value = pretty(example(payloadSchema(of)));
  $("schema").textContent = pretty(follow(payloadSchema(of)));
  $("result").replaceChildren();
  $("events").textContent = "";
  showCurl();
}

function showCurl() {
  let body = $("payload").value;
  try { body = JSON.stringify({ payload: JSON.parse(body) }); } catch { body = "{}"; }
  $("curl").textContent = `curl -sS ${location.origin}${path} -H 'content-type: application/json' -d '${body.replaceAll("'", "'\\''")}'`;
}

async function run(event) {
  event.preventDefault();
  const result = $("result");
  let payload;
  try { payload = JSON.parse($("payload").value); } catch (error) { result.replaceChildren(make("p", `The payload is no JSON: ${error.message}`, { className: "error" })); return; }
  result.replaceChildren();
  $("events").textContent = "";
  $("run").disabled = true;
  try {
    const answer = await fetch(path, { method: "POST", headers: { accept: "application/x-ndjson", "content-type": "application/json" }, body: JSON.stringify({ payload }) });
    if (!answer.ok) { const problem = await answer.json(); result.append(make("p", [problem.detail, problem.hint].filter(Boolean).join(". "), { className: "error" })); return; }
    current = answer.headers.get("x-run-id");
    $("cancel").disabled = false;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) show(JSON.parse(line));
    }
  } catch (error) {
    result.append(make("p", `The stream was cut: ${error.message}; the run is below.`, { className: "error" }));
  } finally {
    $("run").disabled = false;
    $("cancel").disabled = true;
    $("progress").hidden = true;
    refresh();
  }
}

function show({ event, data }) {
  $("events").textContent += `${event} ${JSON.stringify(data)}\n`;
  if (event === "progress" && typeof data.progress === "number") { $("progress").hidden = false; $("progress").value = data.progress; }
  if (event === "output") $("result").append(make("code", `${JSON.stringify(data)} `));
  if (event !== "done") return;
  if (data.error) $("result").append(make("p", `${data.error.detail} (${data.error.code})`, { className: "error" }));
  for (const warning of data.warnings || []) $("result").append(make("p", `${warning.pointer}: ${warning.message}`, { className: "error" }));
  for (const file of data.files || []) {
    const figure = make("figure", "");
    if ((file.mime_type || "").startsWith("image/")) figure.append(make("img", "", { src: file.url, alt: file.ref }));
    figure.append(make("a", file.ref, { href: file.url }));
    $("result").append(figure);
  }
  if (data.output !== undefined && data.output !== null) $("result").append(make("pre", pretty(data.output)));
}

async function refresh() {
  const answer = await fetch("/v1/runs?limit=20").catch(() => null);
  $("state").textContent = answer && answer.ok ? "" : "the platform does not answer";
  if (!answer || !answer.ok) return;
  const rows = (await answer.json()).data.map((run) => {
    const row = make("tr", "");
    const button = make("button", run.id.slice(0, 16), { title: run.id, onclick: () => { open = open === run.id ? "" : run.id; look(); } });
    const cell = make("td", "");
    cell.append(button);
    const took = run.timings && run.timings.total_ms !== undefined ? `${run.timings.total_ms} ms` : "";
    row.append(cell, make("td", `${run.owner}/${run.endpoint}/${run.function}:${run.tag}`), make("td", run.status, { className: run.status }), make("td", run.attempt), make("td", took), make("td", run.error ? run.error.code : run.routing ? run.routing.reason : ""));
    return row;
  });
  $("runs").replaceChildren(...rows);
}

async function look() {
  $("one").hidden = !open;
  if (!open) return;
  const answer = await fetch(`/v1/runs/${open}`).catch(() => null);
  if (answer && answer.ok) $("one").textContent = pretty(await answer.json());
}

async function functions() {
  const answer = await fetch("/openapi.json").catch(() => null);
  if (!answer || !answer.ok) return;
  api = await answer.json();
  const found = Object.keys(api.paths).filter((each) => api.paths[each].post && api.paths[each].post.tags[0] === "functions");
  if (found.join() === [...$("functions").children].map((each) => each.dataset.path).join()) return;
  $("functions").replaceChildren(...found.map((each) => {
    const button = make("button", each.slice("/v1/".length), { type: "button", onclick: () => choose(each) });
    button.dataset.path = each;
    return button;
  }));
  if (!found.includes(path) && found.length) choose(found[0]);
}

$("form").addEventListener("submit", run);
$("payload").addEventListener("input", showCurl);
$("cancel").addEventListener("click", () => fetch(`/v1/runs/${current}/cancel`, { method: "POST" }));
functions().then(refresh);
setInterval(() => { if (!document.hidden) { refresh(); look(); } }, 2000);
setInterval(() => { if (!document.hidden) functions(); }, 10000);
