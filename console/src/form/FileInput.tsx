// A file for a field: chosen, dropped or pasted.

import { useEffect, useState } from "react";
import { Button } from "react-aria-components/Button";
import { DropZone } from "react-aria-components/DropZone";
import type { FileDropItem } from "react-aria-components/useDragAndDrop";
import { bytes } from "../ui/parts";

interface Props {
  id: string;
  name: string;
  label: string;
  describedBy?: string;
  accept: string;
  file: File | null;
  onFile: (file: File | null) => void;
}

export function FileInput({ id, name, label, describedBy, accept, file, onFile }: Props) {
  return (
    <DropZone
      className="drop"
      aria-label={`${label}: drop or paste a file`}
      getDropOperation={() => "copy"}
      onDrop={(event) => {
        const dropped = event.items.find((each): each is FileDropItem => each.kind === "file");
        if (dropped) void dropped.getFile().then(onFile);
      }}
    >
      <input key={file ? "taken" : "open"} id={id} name={name} type="file" aria-describedby={describedBy} accept={accept || undefined} onChange={(event) => onFile(event.currentTarget.files?.[0] ?? null)} />
      {file ? (
        <div className="taken">
          <Preview file={file} />
          <span className="grow">
            {file.name} <span className="optional">{bytes(file.size)}</span>
          </span>
          <Button className="button small" aria-label={`Remove the file of ${label}`} onPress={() => onFile(null)}>
            Remove
          </Button>
        </div>
      ) : (
        <p className="hint">or drop it here, or paste it</p>
      )}
    </DropZone>
  );
}

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"];

function Preview({ file }: { file: File }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    if (!PICTURES.includes(file.type)) return setUrl("");
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url ? <img className="preview" src={url} alt="" /> : null;
}
