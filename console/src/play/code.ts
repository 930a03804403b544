// A run as something to paste: curl, Python, TypeScript.

import { isObject } from "../schema/shape";
import { encode, TypedNumber, type Payload, type Sent } from "../schema/draft";
import { currentKey, IS_PLATFORM } from "../server/api";
import type { Fn } from "../server/functions";

export type Language = "curl" | "Python" | "TypeScript";
export const LANGUAGES: Language[] = ["curl", "Python", "TypeScript"];

const shellQuoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

export function codeFor(language: Language, fn: Fn, shown: Sent, payload: Payload): string {
  const url = `${location.origin}${fn.path}`;
  const withKey = IS_PLATFORM && currentKey() !== "";
  const names = payload.files.map(({ name, file }) => [name, file.name] as const);
  switch (language) {
    case "curl": {
      const key = withKey ? ` -H "authorization: Bearer $COZY_API_KEY"` : "";
      if (names.length) return `curl -sS ${url}${key} \\\n  -F payload=${shellQuoted(encode(shown))}${names.map(([name, file]) => ` \\\n  -F ${shellQuoted(`${name}=@${file}`)}`).join("")}`;
      return `curl -sS ${url}${key} -H 'content-type: application/json' \\\n  -d ${shellQuoted(`{"payload":${encode(shown)}}`)}`;
    }
    case "Python": {
      if (!names.length) {
        // The project's own client, which finds the key that `cozyctl login` keeps.
        const ref = IS_PLATFORM ? fn.id : fn.path.slice("/v1/run/".length);
        const call = fn.streams ? `for item in client.stream(${JSON.stringify(ref)}, payload):\n    print(item)` : `print(client.run(${JSON.stringify(ref)}, payload))`;
        return `from gen_worker.client import Client\n\npayload = ${python(shown)}\nclient = Client(${JSON.stringify(location.origin)})\n${call}`;
      }
      const headers = withKey ? `\n    headers={"authorization": f"Bearer {os.environ['COZY_API_KEY']}"},` : "";
      const files = `\n    data={"payload": json.dumps(payload)},\n    files=[${names.map(([name, file]) => `(${JSON.stringify(name)}, open(${JSON.stringify(file)}, "rb"))`).join(", ")}],`;
      const imports = ["import json", withKey && "import os", "import httpx"].filter(Boolean).join("\n");
      return `${imports}\n\npayload = ${python(shown)}\nanswer = httpx.post(\n    ${JSON.stringify(url)},${files}${headers}\n    timeout=None,\n)\nprint(answer.json())`;
    }
    case "TypeScript": {
      const headers = [!names.length && `"content-type": "application/json"`, withKey && "authorization: `Bearer ${process.env.COZY_API_KEY}`"].filter(Boolean).join(", ");
      const body = names.length
        ? `const form = new FormData();\nform.append("payload", JSON.stringify(payload));\n${names.map(([name, file]) => `form.append(${JSON.stringify(name)}, await openAsBlob(${JSON.stringify(file)}), ${JSON.stringify(file)});`).join("\n")}\n`
        : "";
      const imports = names.length ? `import { openAsBlob } from "node:fs";\n\n` : "";
      return `${imports}const payload = ${encode(shown, 2)};\n${body}const answer = await fetch(${JSON.stringify(url)}, {\n  method: "POST",${headers ? `\n  headers: { ${headers} },` : ""}\n  body: ${names.length ? "form" : "JSON.stringify({ payload })"},\n});\nconsole.log(await answer.json());`;
    }
  }
}

/** A session as something to paste. */
export function sessionCode(id: string, url: string): [string, string][] {
  const where = JSON.stringify(location.origin);
  const ref = JSON.stringify(id);
  return [
    ["Python", `from gen_worker.client import Client\n\nclient = Client(${where})\nwith client.session(${ref}) as session:\n    session.send("hello")\n    for message in session:\n        print(message)`],
    ["TypeScript", `import { Client } from "gen-worker-client";\n\nconst client = new Client(${where});\nconst session = await client.session(${ref});\nawait session.send("hello");\nfor await (const message of session) console.log(message);`],
    ["command", `python -m websockets ${url}`],
  ];
}

function python(value: Sent, depth = 0): string {
  const line = `\n${"    ".repeat(depth + 1)}`;
  const inner = `\n${"    ".repeat(depth)}`;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return value.length ? `[${value.map((each) => line + python(each, depth + 1)).join(",")},${inner}]` : "[]";
  if (isObject(value) && !((value as unknown) instanceof TypedNumber)) {
    const entries = Object.entries(value as { [key: string]: Sent });
    return entries.length ? `{${entries.map(([key, each]) => `${line}${JSON.stringify(key)}: ${python(each, depth + 1)}`).join(",")},${inner}}` : "{}";
  }
  return encode(value);
}
