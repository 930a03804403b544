"use strict";
// Builds a form for each operation of /openapi.json, runs it, and shows what comes back as it comes.
const $ = (id) => document.getElementById(id);
let schemas = {}, operations = {}, current = null, runId = null, abort = null;

const resolve = (schema) => {
  while (schema && schema.$ref) schema = { ...schemas[schema.$ref.split("/").pop()], ...omitRef(schema) };
  return schema || {};
};
const omitRef = ({ $ref, ...rest }) => rest;
const withoutNull = (schema) => {
  const full = resolve(schema);
  if (!full.anyOf) return full;
  const rest = full.anyOf.map(resolve).filter((branch) => branch.type !== "null");
  return rest.length === 1 ? { ...rest[0], ...full, anyOf: undefined, type: rest[0].type, properties: rest[0].properties } : full;
};
const isAsset = (schema) => schema.title === "Asset" && schema.properties && "sha256" in schema.properties;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function start() {
  try {
    const found = await (await fetch("/openapi.json")).json();
    schemas = found.components.schemas;
    $("title").textContent = document.title = found.info.title;
    for (const [path, methods] of Object.entries(found.paths))
      if (path.startsWith("/v1/run/")) operations[path.split("/").pop()] = methods.post;
    for (const name of Object.keys(operations)) $("functions").append(element("button", { type: "button", textContent: name, onclick: () => show(name) }));
    listSockets(found["x-websockets"] || []);
    if (Object.keys(operations).length) show(operations[location.hash.slice(1)] ? location.hash.slice(1) : Object.keys(operations)[0]);
  } catch (error) {
    $("state").textContent = `cannot read /openapi.json: ${error}`;
  }
}

function listSockets(sockets) {
  $("websockets").hidden = !sockets.length;
  for (const { name, path, description } of sockets)
    $("sockets").append(
      element("dt", { textContent: name }),
      element("dd", { className: "about", textContent: description }),
      element("dd", {}, element("code", { textContent: `${location.origin.replace(/^http/, "ws")}${path}` })),
    );
}

function payloadSchema(name) {
  return resolve(operations[name].requestBody.content["application/json"].schema);
}

function show(name) {
  current = name;
  location.hash = name;
  for (const button of $("functions").children) button.toggleAttribute("aria-current", button.textContent === name);
  $("work").hidden = false;
  $("name").textContent = name;
  $("description").textContent = operations[name].description;
  const schema = payloadSchema(name);
  $("form").replaceChildren(...Object.entries(schema.properties || {}).map(([field, inner]) => fieldFor(field, inner, (schema.required || []).includes(field))));
  $("result").replaceChildren();
  $("events").textContent = "";
  $("progress").hidden = true;
  showCurl();
}

function fieldFor(field, raw, required) {
  const schema = withoutNull(raw);
  const example = (schema.examples || [])[0];
  const start = example ?? schema.default ?? "";
  let input;
  if (isAsset(schema)) input = element("input", { type: "file" });
  else if (schema.enum) {
    const choices = required || schema.enum.includes(start) ? schema.enum : ["", ...schema.enum];
    input = element("select", {}, ...choices.map((value) => element("option", { textContent: value, selected: value === start })));
  }
  else if (schema.type === "boolean") input = element("input", { type: "checkbox", checked: Boolean(start) });
  else if (schema.type === "integer" || schema.type === "number")
    input = element("input", { type: "number", step: schema.type === "integer" ? 1 : "any", min: schema.minimum ?? "", max: schema.maximum ?? "", value: start });
  else if (schema.type === "string") input = element(String(start).length > 60 ? "textarea" : "input", { value: start });
  else input = element("textarea", { value: start === "" ? "" : JSON.stringify(start), placeholder: "JSON" });
  input.name = field;
  input.dataset.kind = isAsset(schema) ? "file" : schema.type || "json";
  input.oninput = showCurl;
  const label = element("label", {}, element("span", { textContent: field + (required ? "" : " (optional)") }));
  if (schema.description) label.append(element("small", { textContent: schema.description }));
  label.append(input);
  return label;
}

function payload() {
  const found = {};
  const files = [];
  for (const input of $("form").elements) {
    if (!input.name) continue;
    const kind = input.dataset.kind;
    if (kind === "file") { if (input.files[0]) files.push([input.name, input.files[0]]); }
    else if (kind === "boolean") found[input.name] = input.checked;
    else if (input.value === "") continue;
    else if (kind === "integer" || kind === "number") found[input.name] = Number(input.value);
    else if (kind === "string") found[input.name] = input.value;
    else { try { found[input.name] = JSON.parse(input.value); } catch { found[input.name] = input.value; } }
  }
  return [found, files];
}

function showCurl() {
  const [found, files] = payload();
  const url = `${location.origin}/v1/run/${current}`;
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  $("curl").textContent = files.length
    ? `curl -sS ${url} -F payload=${quoted(JSON.stringify(found))}` + files.map(([name, file]) => ` -F ${name}=@${quoted(file.name)}`).join("")
    : `curl -sS ${url} -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify({ payload: found }))}`;
}

$("form").onsubmit = async (event) => {
  event.preventDefault();
  const [found, files] = payload();
  let body = JSON.stringify({ payload: found });
  const headers = { accept: "text/event-stream" };
  if (files.length) {
    body = new FormData();
    body.append("payload", JSON.stringify(found));
    for (const [name, file] of files) body.append(name, file);
  } else headers["content-type"] = "application/json";
  $("result").replaceChildren();
  $("events").textContent = "";
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
  $("run").disabled = true;
  $("cancel").disabled = false;
  abort = new AbortController();
  try {
    const response = await fetch(`/v1/run/${current}?events=all`, { method: "POST", body, headers, signal: abort.signal });
    runId = response.headers.get("x-run-id");
    if (!response.ok) return fail(await response.json());
    await follow(response.body.pipeThrough(new TextDecoderStream()).getReader());
  } catch (error) {
    if (error.name !== "AbortError") fail({ detail: String(error) });
  } finally {
    $("run").disabled = false;
    $("cancel").disabled = true;
    $("progress").hidden = true;
  }
};

$("cancel").onclick = async () => {
  if (runId) await fetch(`/v1/runs/${runId}/cancel`, { method: "POST" });
  else abort?.abort();
};

async function follow(reader) {
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const fields = Object.fromEntries(frame.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.data) handle(fields.event, JSON.parse(fields.data));
    }
  }
}

function handle(name, data) {
  if (name !== "output") $("events").textContent += `${name} ${JSON.stringify(data)}\n`;
  if (name === "progress") $("progress").value = data.progress;
  if (name === "output") output().textContent += JSON.stringify(data) + "\n";
  if (name === "done") data.status === "succeeded" ? finish(data) : fail(data.error || { detail: data.status });
}

function output() {
  let pre = $("result").querySelector("pre");
  if (!pre) $("result").append((pre = element("pre")));
  return pre;
}

function finish(run) {
  for (const file of run.files || []) {
    const type = file.mime_type || "";
    const link = element("a", { href: file.url, textContent: `${file.ref} (${file.size_bytes} bytes)` });
    const figure = element("figure");
    if (type.startsWith("image/")) figure.append(element("img", { src: file.url, alt: file.ref }));
    if (type.startsWith("audio/")) figure.append(element("audio", { src: file.url, controls: true }));
    figure.append(element("figcaption", {}, link));
    $("result").prepend(figure);
  }
  if (run.output !== null) output().textContent += JSON.stringify(run.output, null, 2);
  $("state").textContent = `${run.function}: ${run.timings.total_ms} ms`;
}

function fail(problem) {
  $("result").append(element("p", { className: "error", textContent: problem.detail || problem.title || "failed" }));
  if (problem.hint) $("result").append(element("pre", { className: "error", textContent: problem.hint }));
  for (const input of $("form").elements) {
    if (input.name) input.classList.toggle("wrong", (problem.errors || []).some((error) => error.pointer.startsWith("/" + input.name)));
  }
  $("state").textContent = problem.code || "failed";
}

start();
