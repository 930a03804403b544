// Files for a field: chosen, dropped or pasted.

import { useEffect, useState } from "react";
import { Button } from "react-aria-components/Button";
import { DropZone } from "react-aria-components/DropZone";
import type { DropItem, FileDropItem } from "react-aria-components/useDragAndDrop";
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

/** One file. */
export function FileInput({ id, name, label, describedBy, accept, file, onFile }: Props) {
  const [left, setLeft] = useState(0);
  return (
    <DropZone
      className="drop"
      aria-label={`${label}: drop or paste a file`}
      getDropOperation={() => "copy"}
      onDrop={(event) =>
        void filesOf(event.items).then((files) => {
          setLeft(Math.max(0, files.length - 1));
          if (files[0]) onFile(files[0]);
        })
      }
    >
      <input key={file ? "taken" : "open"} id={id} name={name} type="file" aria-describedby={describedBy} accept={accept || undefined} onChange={(event) => (setLeft(0), onFile(event.currentTarget.files?.[0] ?? null))} />
      {file ? (
        <div className="taken">
          <Preview file={file} />
          <span className="grow">
            {file.name}{" "}
            <span className="optional">
              {bytes(file.size)}
              {file.type && `, ${file.type}`}
            </span>
          </span>
          <Button className="button small" aria-label={`Remove the file of ${label}`} onPress={() => (setLeft(0), onFile(null))}>
            Remove
          </Button>
        </div>
      ) : (
        <p className="hint">or drop it here, or paste it</p>
      )}
      {file && left > 0 && (
        <p className="hint" role="status">
          This field takes one file; {left} more {left === 1 ? "was" : "were"} left out.
        </p>
      )}
    </DropZone>
  );
}

/** Several files at once. */
export function FilesInput({ name, label, accept, onFiles }: { name: string; label: string; accept: string; onFiles: (files: File[]) => void }) {
  const [round, setRound] = useState(0);
  return (
    <DropZone className="drop" aria-label={`${label}: drop or paste files`} getDropOperation={() => "copy"} onDrop={(event) => void filesOf(event.items).then(onFiles)}>
      <input
        key={round}
        name={name}
        type="file"
        multiple
        aria-label={`Add files to ${label}`}
        accept={accept || undefined}
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          setRound(round + 1); // the same file may be chosen again
        }}
      />
      <p className="hint">or drop them here, or paste them</p>
    </DropZone>
  );
}

async function filesOf(items: DropItem[]): Promise<File[]> {
  return Promise.all(items.filter((each): each is FileDropItem => each.kind === "file").map((each) => each.getFile()));
}

/** What is to be said of a file that is not of the type that its field names; nothing where it may well be. The server has the last word. */
export function typeProblem(file: File, accept: string): string | undefined {
  const type = file.type || "of an unknown type";
  const fits = accept.split(",").some((each) => {
    const wanted = each.trim().toLowerCase();
    if (wanted.startsWith(".")) return file.name.toLowerCase().endsWith(wanted);
    return wanted.endsWith("/*") ? file.type.startsWith(wanted.slice(0, -1)) : file.type === wanted;
  });
  return !accept || accept === "*/*" || fits ? undefined : `${file.name} is ${type}; expected ${accept}`;
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
