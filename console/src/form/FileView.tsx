// Fields that take a file, or several.

import { Button } from "react-aria-components/Button";
import { ABSENT, type Draft } from "../schema/draft";
import type { ShapeOf } from "../schema/shape";
import { FileInput, FilesInput, typeProblem } from "./FileInput";
import { Labelled, type ViewProps } from "./labelled";

export function FileView(props: ViewProps<ShapeOf<"file">>) {
  const { shape, draft, name, label, onChange } = props;
  const nothing: Draft = shape.nullable ? { is: "null" } : ABSENT;
  const taken = draft.is === "file" ? draft.file : null;
  const hint = draft.is === "asset" ? `the file of before: ${JSON.stringify(draft.value).slice(0, 200)}` : taken ? typeProblem(taken, shape.accept) : undefined;
  return (
    <Labelled props={props} hint={hint}>
      {({ id, describedBy }) => <FileInput id={id} name={name} label={label} describedBy={describedBy} accept={shape.accept} file={taken} onFile={(file) => onChange(file ? { is: "file", file } : nothing)} />}
    </Labelled>
  );
}

interface ListProps {
  items: Draft[];
  item: ShapeOf<"file">;
  minItems: number;
  maxItems: number;
  onChange: (items: Draft[]) => void;
  name: string;
  pointer: string;
  label: string;
}

/** Files one below the other, and a place that takes several at once. */
export function FileListView({ items, item, minItems, maxItems, onChange, name, pointer, label }: ListProps) {
  const room = maxItems - items.length;
  return (
    <>
      {items.map((each, index) => (
        <div className="item" key={index}>
          <FileView
            shape={item}
            draft={each}
            onChange={(inner) => onChange(items.with(index, inner))}
            name={`${name}[${index}]`}
            pointer={`${pointer}/${index}`}
            label={`${label} ${index + 1}`}
            required
            fallback={undefined}
          />
          <Button className="button small" aria-label={`Remove ${label} ${index + 1}`} isDisabled={items.length <= minItems} onPress={() => onChange(items.toSpliced(index, 1))}>
            Remove
          </Button>
        </div>
      ))}
      {room > 0 && <FilesInput name={name} label={label} accept={item.accept} onFiles={(files) => onChange([...items, ...files.slice(0, room).map((file): Draft => ({ is: "file", file }))])} />}
    </>
  );
}
