// The functions that this server runs, read from /openapi.json. Both servers describe them there, in slightly different places.

import { resolve, type Definitions, type Schema } from "../schema/resolve";
import { get, IS_PLATFORM } from "./api";

export interface Fn {
  /** `generate` in the dev runner, `owner/endpoint/function:tag` on the platform. */
  id: string;
  path: string;
  description: string;
  input: Schema;
  output: Schema;
  streams: boolean;
  takesFiles: boolean;
}

export interface Socket {
  /** `listen` in the dev runner, `owner/endpoint/listen:tag` on the platform. */
  id: string;
  name: string;
  path: string;
  description: string;
}

export interface Catalogue {
  title: string;
  functions: Fn[];
  sockets: Socket[];
  definitions: Definitions;
}

interface Operation {
  tags?: string[];
  description?: string;
  requestBody?: { content: Record<string, { schema: Schema }> };
  "x-output"?: Schema;
  "x-output-mode"?: string;
}

interface OpenApi {
  info: { title: string };
  paths: Record<string, { post?: Operation }>;
  components: { schemas: Definitions };
  "x-websockets"?: Omit<Socket, "id">[];
}

export async function readCatalogue(signal?: AbortSignal): Promise<Catalogue> {
  const document = await get<OpenApi>("/openapi.json", signal);
  const definitions = document.components.schemas;
  const functions: Fn[] = [];
  for (const [path, { post }] of Object.entries(document.paths)) {
    if (!post?.requestBody || !post.tags?.includes("functions") || path.startsWith("/v1/warmup/")) continue;
    const body = post.requestBody.content["application/json"]?.schema ?? {};
    const found = IS_PLATFORM ? resolve(body, definitions).properties?.payload ?? {} : body;
    functions.push({
      id: path.slice(IS_PLATFORM ? "/v1/".length : "/v1/run/".length),
      path,
      description: post.description ?? "",
      input: resolve(found, definitions),
      output: post["x-output"] ?? {},
      streams: post["x-output-mode"] === "incremental",
      takesFiles: "multipart/form-data" in post.requestBody.content,
    });
  }
  const sockets = (document["x-websockets"] ?? []).map((each) => ({ ...each, id: IS_PLATFORM ? each.path.slice("/v1/".length) : each.name }));
  return { title: document.info.title, functions, sockets, definitions };
}

/** The field of an output that holds a piece of text, where a stream gives text piece by piece; null where it gives something else. */
export function textField(output: Schema, definitions: Definitions): string | null {
  const schema = resolve(output, definitions);
  const texts = Object.entries(schema.properties ?? {})
    .filter(([, each]) => {
      const full = resolve(each, definitions);
      return full.type === "string" && !full.contentEncoding && !full.format;
    })
    .map(([name]) => name);
  for (const name of ["delta", "content", "chunk", "token", "text"]) if (texts.includes(name)) return name;
  const others = Object.values(schema.properties ?? {}).length - texts.length;
  return texts.length === 1 && others === 0 ? (texts[0] ?? null) : null;
}

