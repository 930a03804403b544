// The files of a run, in the order in which it saved them.

import { bytes } from "../ui/parts";
import { mediaOf, useFileUrl } from "./outputs";
import type { OutFile } from "./run";

export function Files({ files }: { files: OutFile[] }) {
  if (!files.length) return null;
  return (
    <div className="files">
      {files.map((file) => (
        <FileFigure key={file.ref} file={file} />
      ))}
    </div>
  );
}

function FileFigure({ file }: { file: OutFile }) {
  const { url, problem } = useFileUrl(file);
  const media = mediaOf(file);
  const name = file.ref.slice(file.ref.lastIndexOf("/") + 1);
  return (
    <figure data-file={file.ref}>
      {url && media === "image" && <img src={url} alt={name} />}
      {url && media === "audio" && <audio src={url} controls aria-label={name} />}
      {url && media === "video" && <video src={url} controls playsInline aria-label={name} />}
      <figcaption>
        {url ? (
          <a href={url} download={name}>
            {name}
          </a>
        ) : (
          name
        )}{" "}
        <span className="optional">
          {[file.mime_type, file.size_bytes !== undefined && bytes(file.size_bytes)].filter(Boolean).join(", ")}
        </span>
        {problem && <span className="wrong">{problem}</span>}
      </figcaption>
    </figure>
  );
}
