// One field of a form, for every kind of value that a payload may hold.

import { useId } from "react";
import { Button } from "react-aria-components/Button";
import { Radio, RadioGroup } from "react-aria-components/RadioGroup";
import { Slider, SliderThumb, SliderTrack } from "react-aria-components/Slider";
import { ABSENT, draftOf, emptyOf, escapePointer, WHOLE, type Draft } from "../schema/draft";
import type { Field, ShapeOf } from "../schema/shape";
import { FileListView, FileView } from "./FileView";
import { describe, Group, Labelled, Tick, useComplaints, type ViewProps } from "./labelled";

export function Fields({
  fields,
  drafts,
  onChange,
  name = "",
  pointer = "",
}: {
  fields: Field[];
  drafts: Record<string, Draft>;
  onChange: (name: string, draft: Draft) => void;
  name?: string;
  pointer?: string;
}) {
  return fields
    .filter((field) => field.shape.kind !== "constant")
    .map((field) => (
      <FieldView
        key={field.name}
        shape={field.shape}
        draft={drafts[field.name] ?? ABSENT}
        onChange={(draft) => onChange(field.name, draft)}
        name={name ? `${name}.${field.name}` : field.name}
        pointer={field.name === WHOLE ? "" : `${pointer}/${escapePointer(field.name)}`}
        label={field.name || "payload"}
        required={field.required}
        fallback={field.fallback}
      />
    ));
}

export function FieldView(props: ViewProps) {
  const { shape, draft } = props;
  switch (shape.kind) {
    case "text":
      return <TextView {...props} shape={shape} />;
    case "json":
      return <JsonView {...props} shape={shape} />;
    case "number":
      return <NumberView {...props} shape={shape} />;
    case "boolean":
      return <BooleanView {...props} shape={shape} />;
    case "choice":
      return <ChoiceView {...props} shape={shape} />;
    case "file":
      return <FileView {...props} shape={shape} />;
    case "constant":
      return null;
    default: {
      const canBeLeftOut = shape.nullable || (!props.required && props.fallback === undefined);
      const nothing: Draft = shape.nullable ? { is: "null" } : ABSENT;
      const isThere = draft.is !== "null" && draft.is !== "absent";
      return (
        <Group {...props}>
          {canBeLeftOut && (
            <Tick name={props.name} isSelected={isThere} onChange={(on) => props.onChange(on ? emptyOf(shape) : nothing)}>
              Give {props.label}
            </Tick>
          )}
          {isThere && <Inner {...props} />}
        </Group>
      );
    }
  }
}

function Inner(props: ViewProps) {
  const { shape, draft, onChange, name, pointer } = props;
  if (shape.kind === "object" && draft.is === "object") {
    const change = (field: string, inner: Draft) => onChange({ is: "object", fields: { ...draft.fields, [field]: inner } });
    return <Fields fields={shape.fields()} drafts={draft.fields} onChange={change} name={name} pointer={pointer} />;
  }
  if (shape.kind === "list" && draft.is === "list") return <ListView {...props} shape={shape} items={draft.items} />;
  if (shape.kind === "tuple" && draft.is === "list") {
    return shape.items().map((item, index) => (
      <FieldView
        key={index}
        shape={item}
        draft={draft.items[index] ?? ABSENT}
        onChange={(inner) => onChange({ is: "list", items: draft.items.with(index, inner) })}
        name={`${name}[${index}]`}
        pointer={`${pointer}/${index}`}
        label={`${index + 1}.`}
        required
        fallback={undefined}
      />
    ));
  }
  if (shape.kind === "map" && draft.is === "map") return <MapView {...props} shape={shape} entries={draft.entries} />;
  if (shape.kind === "union" && draft.is === "variant") return <UnionView {...props} shape={shape} draft={draft} />;
  return null;
}

function typed(props: ViewProps, text: string): Draft {
  return text === "" && !props.required && props.fallback === undefined ? ABSENT : { is: "value", value: text };
}

const textIn = (draft: Draft): string => (draft.is === "value" ? String(draft.value) : "");

const FORMAT_HINTS: Record<string, string> = {
  "date-time": "such as 2030-01-31T12:00:00Z",
  date: "such as 2030-01-31",
  time: "such as 12:30:00",
  duration: "such as PT1H30M",
  uuid: "a UUID",
  decimal: "a decimal number",
};

function TextView(props: ViewProps<ShapeOf<"text">>) {
  const { shape } = props;
  const text = textIn(props.draft);
  const hint = [FORMAT_HINTS[shape.format], shape.maxLength !== undefined && `at most ${shape.maxLength} characters`, shape.nullable && "empty: none"].filter(Boolean).join(", ");
  return (
    <Labelled props={props} hint={hint}>
      {({ id, describedBy, isWrong }) => {
        const common = {
          id,
          name: props.name,
          value: text,
          "aria-describedby": describedBy,
          "aria-invalid": isWrong || undefined,
          spellCheck: false,
          onChange: (event: { currentTarget: { value: string } }) => props.onChange(typed(props, event.currentTarget.value)),
        };
        if (shape.secret) return <input {...common} type="password" autoComplete="off" />;
        if (shape.long || text.includes("\n")) return <textarea {...common} rows={Math.min(12, Math.max(2, text.split("\n").length))} />;
        return <input {...common} type="text" autoComplete="off" />;
      }}
    </Labelled>
  );
}

function JsonView(props: ViewProps<ShapeOf<"json">>) {
  return (
    <Labelled props={props} hint="JSON">
      {({ id, describedBy, isWrong }) => (
        <textarea
          id={id}
          name={props.name}
          className="mono"
          rows={3}
          value={props.draft.is === "null" ? "null" : textIn(props.draft)}
          aria-describedby={describedBy}
          aria-invalid={isWrong || undefined}
          spellCheck={false}
          onChange={(event) => props.onChange(typed(props, event.currentTarget.value))}
        />
      )}
    </Labelled>
  );
}

function NumberView(props: ViewProps<ShapeOf<"number">>) {
  const { shape } = props;
  const text = textIn(props.draft);
  const value = Number(text);
  const range = [shape.min !== undefined && `from ${shape.min}`, shape.max !== undefined && `to ${shape.max}`].filter(Boolean).join(" ");
  const hint = [range, shape.nullable && "empty: none"].filter(Boolean).join(", ");
  return (
    <Labelled props={props} hint={hint}>
      {({ id, describedBy, isWrong }) => (
        <div className="number">
          {shape.bounded && shape.min !== undefined && shape.max !== undefined && (
            <Slider
              aria-label={props.label}
              className="slider"
              minValue={shape.min}
              maxValue={shape.max}
              step={shape.step}
              value={text === "" || Number.isNaN(value) ? shape.min : Math.min(shape.max, Math.max(shape.min, value))}
              onChange={(found) => props.onChange({ is: "value", value: String(Number((found as number).toFixed(6))) })}
            >
              <SliderTrack className="track">
                <SliderThumb className="thumb" />
              </SliderTrack>
            </Slider>
          )}
          <input
            id={id}
            name={props.name}
            type="text"
            inputMode={shape.whole ? "numeric" : "decimal"}
            autoComplete="off"
            value={text}
            aria-describedby={describedBy}
            aria-invalid={isWrong || undefined}
            onChange={(event) => props.onChange(typed(props, event.currentTarget.value))}
          />
        </div>
      )}
    </Labelled>
  );
}

function BooleanView(props: ViewProps<ShapeOf<"boolean">>) {
  const { shape, draft } = props;
  const complaints = useComplaints(props.pointer);
  const about = (
    <>
      {shape.description && <p className="about">{shape.description}</p>}
      {complaints.length > 0 && <p className="wrong">{complaints.map(describe).join("; ")}</p>}
    </>
  );
  const hasThird = shape.nullable || (!props.required && props.fallback === undefined);
  if (!hasThird) {
    return (
      <div className="field" data-field={props.name} data-wrong={complaints.length ? "" : undefined}>
        <Tick name={props.name} isSelected={draft.is === "value" && draft.value === true} onChange={(on) => props.onChange({ is: "value", value: on })}>
          <span>
            {props.label} {!props.required && <span className="optional">optional</span>}
          </span>
        </Tick>
        {about}
      </div>
    );
  }
  const third: Draft = shape.nullable ? { is: "null" } : ABSENT;
  const word = draft.is === "value" ? String(draft.value) : "none";
  return (
    <div className="field" data-field={props.name} data-wrong={complaints.length ? "" : undefined}>
      <RadioGroup className="choices" name={props.name} aria-label={props.label} value={word} onChange={(found) => props.onChange(found === "none" ? third : { is: "value", value: found === "true" })}>
        <span className="label" aria-hidden="true">
          {props.label} <span className="optional">optional</span>
        </span>
        <div className="row">
          {["true", "false", "none"].map((each) => (
            <Radio key={each} value={each} className="choice">
              {each === "none" && !shape.nullable ? "not set" : each}
            </Radio>
          ))}
        </div>
      </RadioGroup>
      {about}
    </div>
  );
}

function ChoiceView(props: ViewProps<ShapeOf<"choice">>) {
  const { shape, draft } = props;
  const canBeLeftOut = !shape.nullable && !props.required && props.fallback === undefined;
  const chosen = draft.is === "choice" ? shape.options.findIndex((each) => each === draft.value) : -1;
  return (
    <Labelled props={props}>
      {({ id, describedBy, isWrong }) => (
        <select
          id={id}
          name={props.name}
          value={chosen}
          aria-describedby={describedBy}
          aria-invalid={isWrong || undefined}
          onChange={(event) => {
            const option = shape.options[Number(event.currentTarget.value)];
            props.onChange(option === undefined ? (shape.nullable ? { is: "null" } : ABSENT) : { is: "choice", value: option });
          }}
        >
          {(shape.nullable || canBeLeftOut || chosen < 0) && <option value={-1}>{shape.nullable ? "none" : "not set"}</option>}
          {shape.options.map((each, index) => (
            <option key={index} value={index}>
              {typeof each === "string" ? each : JSON.stringify(each)}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}

function ListView({ shape, items, onChange, name, pointer, label }: ViewProps<ShapeOf<"list">> & { items: Draft[] }) {
  const item = shape.item();
  if (item.kind === "file") return <FileListView items={items} item={item} maxItems={shape.maxItems} minItems={shape.minItems} onChange={(next) => onChange({ is: "list", items: next })} name={name} pointer={pointer} label={label} />;
  return (
    <>
      {items.map((each, index) => (
        <div className="item" key={index}>
          <FieldView
            shape={item}
            draft={each}
            onChange={(inner) => onChange({ is: "list", items: items.with(index, inner) })}
            name={`${name}[${index}]`}
            pointer={`${pointer}/${index}`}
            label={`${label} ${index + 1}`}
            required
            fallback={undefined}
          />
          <Button className="button small" aria-label={`Remove ${label} ${index + 1}`} isDisabled={items.length <= shape.minItems} onPress={() => onChange({ is: "list", items: items.toSpliced(index, 1) })}>
            Remove
          </Button>
        </div>
      ))}
      <Button className="button small" isDisabled={items.length >= shape.maxItems} onPress={() => onChange({ is: "list", items: [...items, emptyOf(item)] })}>
        Add to {label}
      </Button>
    </>
  );
}

function MapView({ shape, entries, onChange, name, pointer, label }: ViewProps<ShapeOf<"map">> & { entries: [string, Draft][] }) {
  const value = shape.value();
  const put = (index: number, entry: [string, Draft]) => onChange({ is: "map", entries: entries.with(index, entry) });
  return (
    <>
      {entries.map(([key, each], index) => (
        <div className="item" key={index}>
          <div className="field">
            <label>
              key {index + 1}
              <input type="text" name={`${name}[${index}].key`} autoComplete="off" value={key} onChange={(event) => put(index, [event.currentTarget.value, each])} />
            </label>
          </div>
          <FieldView
            shape={value}
            draft={each}
            onChange={(inner) => put(index, [key, inner])}
            name={`${name}.${key}`}
            pointer={`${pointer}/${escapePointer(key)}`}
            label={`value ${index + 1}`}
            required
            fallback={undefined}
          />
          <Button className="button small" aria-label={`Remove entry ${index + 1} of ${label}`} onPress={() => onChange({ is: "map", entries: entries.toSpliced(index, 1) })}>
            Remove
          </Button>
        </div>
      ))}
      <Button className="button small" onPress={() => onChange({ is: "map", entries: [...entries, ["", emptyOf(value)]] })}>
        Add to {label}
      </Button>
    </>
  );
}

function UnionView(props: ViewProps<ShapeOf<"union">> & { draft: Extract<Draft, { is: "variant" }> }) {
  const { shape, draft, onChange } = props;
  const id = useId();
  const variants = shape.variants();
  const variant = variants[draft.index];
  return (
    <>
      <div className="field">
        <label htmlFor={id}>kind of {props.label}</label>
        <select
          id={id}
          name={`${props.name}:kind`}
          value={draft.index}
          onChange={(event) => {
            const index = Number(event.currentTarget.value);
            const next = variants[index];
            if (next) onChange({ is: "variant", index, draft: next.takes(props.fallback ?? null) ? draftOf(next.shape, props.fallback ?? null) : emptyOf(next.shape) });
          }}
        >
          {variants.map((each, index) => (
            <option key={index} value={index}>
              {each.label}
            </option>
          ))}
        </select>
      </div>
      {variant &&
        (draft.draft.is === "object" || draft.draft.is === "list" || draft.draft.is === "map" ? (
          <Inner {...props} shape={variant.shape} draft={draft.draft} onChange={(inner) => onChange({ ...draft, draft: inner })} />
        ) : (
          <FieldView {...props} required shape={{ ...variant.shape, description: "" }} draft={draft.draft} onChange={(inner) => onChange({ ...draft, draft: inner })} />
        ))}
    </>
  );
}
