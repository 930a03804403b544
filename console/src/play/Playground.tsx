// Try a function: its form, its run, what came of it, and the same as code.

import { useCallback, useEffect, useMemo, useState, type FormEvent, type ReactNode } from "react";
import { Button } from "react-aria-components/Button";
import { Fields } from "../form/FieldView";
import { Complaints } from "../form/labelled";
import { placesFor } from "../form/places";
import { keepRun } from "../run/history";
import { isOver, Run } from "../run/run";
import { RunPanel, useRunIfAny } from "../run/RunPanel";
import { masked, payloadOf, secretsOf, type Draft } from "../schema/draft";
import type { Definitions } from "../schema/resolve";
import { tidy, type Field } from "../schema/shape";
import { IS_PLATFORM, type FieldProblem } from "../server/api";
import type { Fn } from "../server/functions";
import { usePoll } from "../server/usePoll";
import { CodeTabs } from "../ui/CodeTabs";
import { codeFor, LANGUAGES } from "./code";
import type { Forms } from "./form";

interface Props {
  fn: Fn;
  definitions: Definitions;
  forms: Forms;
  run: Run | undefined;
  onRun: (run: Run) => void;
}

export function Playground({ fn, definitions, forms, run, onRun }: Props) {
  const form = forms.of(fn);
  const [complaints, setComplaints] = useState<FieldProblem[]>([]);
  const drafts = form.drafts;
  const fields = form.fields;
  const change = useCallback(
    (name: string, draft: Draft) => {
      // What was wrong with a field is forgotten as soon as somebody mends it.
      setComplaints((all) => all.filter((each) => !isUnder(each.pointer, name)));
      forms.change(fn, name, draft);
    },
    [forms, fn],
  );
  useEffect(() => setComplaints([]), [fn.id]);

  const [against, setAgainst] = useState("");
  const [other, setOther] = useState<Run | null>(null);

  const begin = useCallback(() => {
    if (run && !isOver(run.view)) return;
    const payload = payloadOf(fields, drafts);
    setComplaints(payload.complaints);
    if (payload.complaints.length) return;
    const made = Run.of(fn, payload, secretsOf(fields, drafts), definitions);
    keepRun(made);
    onRun(made);
    void made.begin();
    if (!against) return setOther(null);
    const beside = { ...fn, id: `${fn.id.replace(/:[^/]*$/, "")}@${against}`, path: `${fn.path.replace(/:[^/]*$/, "")}@${against}` };
    const second = Run.of(beside, payload, secretsOf(fields, drafts), definitions);
    keepRun(second);
    setOther(second);
    void second.begin();
  }, [fields, drafts, fn, definitions, run, onRun, against]);

  const said = useFilesFromAnywhere(fields, drafts, change);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    begin();
  };

  return (
    <div className="playground">
      <section className="ask" aria-labelledby="function-name">
        <h2 id="function-name">{fn.id}</h2>
        {IS_PLATFORM && <ReleaseTrouble fn={fn} />}
        {fn.description && <p className="description">{tidy(fn.description)}</p>}
        <Told run={run} complaints={complaints}>
          {(known) => (
            <Complaints.Provider value={known}>
              <form id="form" noValidate onSubmit={submit} onKeyDown={(event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && begin()}>
                <Fields fields={fields} drafts={drafts} onChange={change} />
                {IS_PLATFORM && <Against fn={fn} value={against} onChange={setAgainst} />}
                <p className="hint" role="status">
                  {said}
                </p>
                {fields.length === 0 && <p className="hint">This function takes no input.</p>}
                <Buttons run={run} onReset={() => (forms.reset(fn), setComplaints([]))} />
              </form>
            </Complaints.Provider>
          )}
        </Told>
      </section>
      <section className="answer" aria-label="Result">
        {other && <h3>{fn.id}</h3>}
        {run ? <RunPanel key={run.view.number} run={run} retry={begin} /> : <p className="hint">The result appears here. {IS_PLATFORM ? "Runs are durable: they go on when this page is closed." : ""}</p>}
        {other && (
          <>
            <h3>{other.view.fn}</h3>
            <RunPanel key={other.view.number} run={other} />
          </>
        )}
      </section>
      <Code fn={fn} form={form} />
    </div>
  );
}

/** Why the release that callers get does not serve now, where that is so. */
function ReleaseTrouble({ fn }: { fn: Fn }) {
  const { data } = usePoll<{ tags: { ref: string; release_id: string }[]; paused?: Record<string, string>; failures?: Record<string, string> }>("/v1/status", 5000);
  const ref = fn.id.includes(":") ? fn.id : `${fn.id}:prod`;
  const release = data?.tags.find((each) => each.ref === ref)?.release_id ?? "";
  const why = data?.paused?.[release] ?? data?.failures?.[release];
  if (!why) return null;
  return (
    <div className="problem">
      <p>Workers of {release} do not serve now.</p>
      <pre>{why}</pre>
    </div>
  );
}

/** Another release of the function, which runs the same beside it. */
function Against({ fn, value, onChange }: { fn: Fn; value: string; onChange: (release: string) => void }) {
  const [owner = "", endpoint = "", rest = ""] = fn.id.split("/");
  const name = rest.split(":")[0] ?? "";
  const { data } = usePoll<{ data: { release_id: string; message: string; functions: string[] }[] }>(
    `/v1/releases?owner=${encodeURIComponent(owner)}&endpoint=${encodeURIComponent(endpoint)}`,
    10_000,
  );
  const releases = (data?.data ?? []).filter((each) => each.functions.includes(name));
  if (releases.length < 2) return null;
  return (
    <div className="field">
      <label htmlFor="against">
        Run beside it on <span className="optional">another release, to compare</span>
      </label>
      <select id="against" value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">none</option>
        {releases.map((each) => (
          <option key={each.release_id} value={each.release_id}>
            {each.release_id}
            {each.message && `: ${each.message.slice(0, 60)}`}
          </option>
        ))}
      </select>
    </div>
  );
}

function isUnder(pointer: string, name: string): boolean {
  if (name === "") return true; // the whole payload
  const own = `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  return pointer === own || pointer.startsWith(`${own}/`);
}

/** What the last run's answer said about fields goes with what this page itself found, until a field is changed or another run begins. */
function Told({ run, complaints, children }: { run: Run | undefined; complaints: FieldProblem[]; children: (known: FieldProblem[]) => ReactNode }) {
  const told = useRunIfAny(run)?.problem?.errors;
  const [mended, setMended] = useState<FieldProblem[]>([]);
  const known = useMemo(() => [...(told ?? []).filter((each) => !mended.includes(each)), ...complaints], [told, mended, complaints]);
  return (
    <div
      onInput={(event) => {
        const field = (event.target as HTMLElement).closest("[data-field]")?.getAttribute("data-field")?.split(/[.[]/)[0];
        if (field && told) setMended([...mended, ...told.filter((each) => isUnder(each.pointer, field))]);
      }}
    >
      {children(known)}
    </div>
  );
}

function Buttons({ run, onReset }: { run: Run | undefined; onReset: () => void }) {
  const view = useRunIfAny(run);
  const goesOn = view !== null && !isOver(view);
  return (
    <div className="buttons">
      {/* Not `disabled` when a run begins or ends: the focus would be lost. */}
      <button type="submit" id="run" className="button primary" aria-disabled={goesOn || undefined}>
        Run
      </button>
      <button type="button" id="cancel" className="button" aria-disabled={!goesOn || undefined} onClick={() => goesOn && void run?.cancel()}>
        Cancel
      </button>
      <Button className="button" onPress={onReset}>
        Reset
      </Button>
    </div>
  );
}

function Code({ fn, form }: { fn: Fn; form: { fields: Parameters<typeof payloadOf>[0]; drafts: Record<string, Draft> } }) {
  const payload = payloadOf(form.fields, form.drafts);
  const shown = masked(payload.value, secretsOf(form.fields, form.drafts));
  return <CodeTabs texts={LANGUAGES.map((each) => [each, codeFor(each, fn, shown, payload)])} />;
}

/** Files that are pasted or dropped anywhere on the page go to fields for files. Gives what is to be said of it. */
function useFilesFromAnywhere(fields: Field[], drafts: Record<string, Draft>, change: (name: string, draft: Draft) => void): string {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const take = (files: File[]) => {
      const { changes, left } = placesFor(files, fields, drafts);
      for (const [name, draft] of changes) change(name, draft);
      setSaid(!left ? "" : !changes.length ? "This form has no place for a file." : `${left} ${left === 1 ? "file has" : "files have"} no place in this form.`);
    };
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || event.defaultPrevented) return;
      event.preventDefault();
      take(files);
    };
    // A file that is dropped beside a field would else take the place of this page.
    const over = (event: DragEvent) => event.dataTransfer?.types.includes("Files") && event.preventDefault();
    const drop = (event: DragEvent) => {
      const files = [...(event.dataTransfer?.files ?? [])];
      if (!files.length || event.defaultPrevented) return;
      event.preventDefault();
      take(files);
    };
    document.addEventListener("paste", paste);
    document.addEventListener("dragover", over);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("paste", paste);
      document.removeEventListener("dragover", over);
      document.removeEventListener("drop", drop);
    };
  }, [fields, drafts, change]);
  return said;
}
