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

export interface Difference {
  pointer: string;
  expected: unknown;
  actual: unknown;
  distance?: number;
}

interface Quantiles {
  p50: number | null;
  p95: number | null;
}

/** What came of copies: of shadow runs as they go on, and of what a gate keeps of them. */
export interface Compared {
  against: string;
  percent: number;
  compared: number;
  equal: number;
  different: number;
  failed: number;
  dropped: number;
  by_digest: number;
  images: string;
  seconds: { tag: Quantiles; release: Quantiles };
  examples: { run_id: string; error: string; differences: Difference[]; tag_s: number; release_s: number }[];
}

export interface Shadow extends Compared {
  owner: string;
  endpoint: string;
  function: string;
  tag: string;
  release_id: string;
  tolerance: number;
  runs: number;
  since: number;
  ended_at: number;
  why: string;
  passed: boolean;
}

export interface Golden {
  golden_id: string;
  function: string;
  run_id: string;
  tolerance: number;
  created_at: number;
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
  budgets?: { rate?: string; concurrency?: number; gpu_seconds?: string };
  used?: { rate?: number; concurrency?: number; gpu_seconds?: number };
}

export interface MadeKey extends Key {
  /** Told this once. */
  key: string;
  /** False where the platform asks nobody for keys. */
  enforced?: boolean;
}
