// What the platform's routes answer, as far as the pages read it.

export interface Tag {
  owner: string;
  endpoint: string;
  function: string;
  tag: string;
  release_id: string;
  version: number;
  moved_at: number;
  candidate?: { release_id: string; percent: number; since: number };
  history?: Tag[];
}

export interface Release {
  release_id: string;
  owner: string;
  endpoint: string;
  source: string;
  message: string;
  created_at: number;
  functions: string[];
  tags: string[];
}

export interface Change {
  function: string;
  side: string;
  pointer: string;
  text: string;
  breaking: boolean;
}

export interface Diff {
  from: string;
  to: string;
  breaking: boolean;
  changes: Change[];
}

export interface GateResult {
  kind: string;
  function: string;
  subject: string;
  passed: boolean;
  at: number;
  detail: { [key: string]: unknown };
}

export interface ModelTier {
  model: string;
  tier: string;
  size_bytes: number;
}

export interface Worker {
  worker_id: string;
  release_id: string;
  state: string;
  runs: string[];
  functions: string[];
  gpu: string | null;
  vram_models: string[];
  disk_models: string[];
  memory?: { gpu_bytes: number; gpu_used_bytes: number; host_bytes: number; models: ModelTier[] };
}

export interface Status {
  version: string;
  open_runs: number;
  lanes: { release_id: string; function: string; queued: number; running: number }[];
  workers: Worker[];
  tags: { ref: string; release_id: string }[];
  paused?: Record<string, string>;
  failures?: Record<string, string>;
  dropped?: Record<string, string>;
}

export interface Build {
  build_id: string;
  owner: string;
  status: string;
  message: string;
  endpoint: string;
  release_id: string;
  error: string;
  created_at: number;
  finished_at: number;
}

export interface Key {
  key_id: string;
  owner: string;
  name: string;
  scopes: string[];
  created_at: number;
  expires_at: number;
  revoked_at: number;
}
