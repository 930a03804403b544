// What fields of every kind have: a label, a description, and what is wrong with them.

import { createContext, useContext, useId, type ReactNode } from "react";
import { Checkbox } from "react-aria-components/Checkbox";
import type { Draft } from "../schema/draft";
import type { Json } from "../schema/resolve";
import type { Shape } from "../schema/shape";
import type { FieldProblem } from "../server/api";

/** What the server said about fields, by JSON pointer. */
export const Complaints = createContext<FieldProblem[]>([]);

export interface ViewProps<S extends Shape = Shape> {
  shape: S;
  draft: Draft;
  onChange: (draft: Draft) => void;
  /** As in a form: `prompt`, `images[0]`, `options.mask`. */
  name: string;
  pointer: string;
  label: string;
  required: boolean;
  fallback: Json | undefined;
}

/** The complaints of a field itself, and whether there are any. */
export function useComplaints(pointer: string): FieldProblem[] {
  return useContext(Complaints).filter((each) => each.pointer === pointer);
}

export function describe(each: FieldProblem): string {
  return each.suggestion ? `${each.message}; did you mean ${each.suggestion}?` : each.message;
}

interface Ids {
  id: string;
  describedBy: string | undefined;
  isWrong: boolean;
}

export function Labelled({ props, hint, children }: { props: ViewProps; hint?: string; children: (ids: Ids) => ReactNode }) {
  const id = useId();
  const complaints = useComplaints(props.pointer);
  const described = [props.shape.description && `${id}-about`, hint && `${id}-hint`, complaints.length && `${id}-wrong`].filter(Boolean).join(" ");
  return (
    <div className="field" data-field={props.name} data-wrong={complaints.length ? "" : undefined}>
      <label htmlFor={id}>
        {props.label} {!props.required && <span className="optional">optional</span>}
      </label>
      {props.shape.description && (
        <p className="about" id={`${id}-about`}>
          {props.shape.description}
        </p>
      )}
      {children({ id, describedBy: described || undefined, isWrong: complaints.length > 0 })}
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {complaints.length > 0 && (
        <p className="wrong" id={`${id}-wrong`}>
          {complaints.map(describe).join("; ")}
        </p>
      )}
    </div>
  );
}

export function Group({ children, ...props }: ViewProps & { children: ReactNode }) {
  const id = useId();
  const complaints = useComplaints(props.pointer);
  return (
    <fieldset className="group" data-field={props.name} data-wrong={complaints.length ? "" : undefined} aria-describedby={complaints.length ? id : undefined}>
      <legend>
        {props.label} {!props.required && <span className="optional">optional</span>}
      </legend>
      {props.shape.description && <p className="about">{props.shape.description}</p>}
      {children}
      {complaints.length > 0 && (
        <p className="wrong" id={id}>
          {complaints.map(describe).join("; ")}
        </p>
      )}
    </fieldset>
  );
}

export function Tick({ name, isSelected, onChange, children }: { name: string; isSelected: boolean; onChange: (on: boolean) => void; children: ReactNode }) {
  return (
    <Checkbox className="tick" name={name} isSelected={isSelected} onChange={onChange}>
      <span className="box" aria-hidden="true" />
      {children}
    </Checkbox>
  );
}
