// Models of the dev runner: what is loaded, what lies on disk, what is on its way.

import { Label } from "react-aria-components/Label";
import { Meter } from "react-aria-components/Meter";
import { ModelBar } from "../run/RunPanel";
import type { ModelProgress } from "../run/run";
import { send, Trouble } from "../server/api";
import { usePoll } from "../server/usePoll";
import { ActButton } from "../ui/ActButton";
import { ProblemNote } from "../ui/parts";
import { useAction } from "../ui/useAction";

interface Models {
  model_cache: { vram_models: string[]; disk_models: string[]; vram_used_gb: number; vram_total_gb: number };
  progress: ModelProgress[];
}

export function DevModels() {
  const { data, problem, again } = usePoll<Models>("/v1/models/status", 1000);
  const { act, busy, problem: failed } = useAction();
  const ask = (verb: "load" | "unload", model: string) =>
    void act(async () => {
      const answer = await send<{ ok: boolean; error_message: string }>("POST", `/v1/models/${verb}`, { model_id: model });
      again();
      if (!answer.ok) throw new Trouble({ detail: answer.error_message });
    });
  const cache = data?.model_cache;
  return (
    <>
      <h2>Models</h2>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {failed && <ProblemNote problem={failed} />}
      {cache && cache.vram_total_gb > 0 && (
        <Meter className="meter" value={Math.min(100, (cache.vram_used_gb / cache.vram_total_gb) * 100)} valueLabel={`${cache.vram_used_gb} of ${cache.vram_total_gb} GB`}>
          {({ percentage, valueText }) => (
            <>
              <Label>On the device</Label> <span className="figures">{valueText}</span>
              <span className="bar tall" aria-hidden="true">
                <span className="fill share s0" style={{ width: `${percentage}%` }} />
              </span>
            </>
          )}
        </Meter>
      )}
      {(data?.progress ?? []).map((each) => (
        <ModelBar key={each.model_id} progress={each} />
      ))}
      <Names title="On the device" verb="Unload" models={cache?.vram_models ?? []} busy={busy} onPress={(model) => ask("unload", model)} />
      <Names title="On disk" verb="Load" models={cache?.disk_models ?? []} busy={busy} onPress={(model) => ask("load", model)} />
      {cache && !cache.vram_models.length && !cache.disk_models.length && !data?.progress.length && <p className="hint">No model was asked for yet.</p>}
    </>
  );
}

function Names({ title, verb, models, busy, onPress }: { title: string; verb: string; models: string[]; busy: boolean; onPress: (model: string) => void }) {
  if (!models.length) return null;
  return (
    <>
      <h3>{title}</h3>
      <ul className="changes">
        {models.map((each) => (
          <li key={each}>
            {each}{" "}
            <ActButton className="button small" aria-label={`${verb} ${each}`} busy={busy} onPress={() => onPress(each)}>
              {verb}
            </ActButton>
          </li>
        ))}
      </ul>
    </>
  );
}
