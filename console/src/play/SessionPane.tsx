// Try a websocket handler: connect, send text, JSON, a file or the microphone, and see each message.

import { useEffect, useRef, useState, useSyncExternalStore, type FormEvent } from "react";
import { linkTo } from "../place";
import { tidy } from "../schema/shape";
import { IS_PLATFORM } from "../server/api";
import type { Socket } from "../server/functions";
import { CodeTabs } from "../ui/CodeTabs";
import { bytes, ProblemNote } from "../ui/parts";
import { sessionCode } from "./code";
import { MAX_MESSAGE_BYTES, type Frame, type Session } from "./session";

const WORDS = { new: "not connected", connecting: "connecting", open: "open", over: "over" } as const;

export function SessionPane({ socket, session }: { socket: Socket; session: Session }) {
  const view = useSyncExternalStore(session.subscribe, session.snapshot);
  const isOpen = view.status === "open";
  const isIdle = view.status === "new" || view.status === "over";
  const [text, setText] = useState("");
  const [asJson, setAsJson] = useState(false);
  const [inPieces, setInPieces] = useState(false);
  const [wrong, setWrong] = useState("");
  const file = useRef<HTMLInputElement>(null);
  const url = `${location.origin.replace(/^http/, "ws")}${socket.path}`;

  const send = () => {
    if (!isOpen) return;
    if (asJson) {
      try {
        JSON.parse(text);
      } catch (error) {
        return setWrong(`This is no JSON: ${(error as Error).message}`);
      }
    }
    setWrong("");
    session.sendText(text);
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
  };
  const sendFile = async () => {
    const chosen = file.current?.files?.[0];
    if (isOpen) setWrong(chosen ? await session.sendFile(chosen, inPieces) : "Choose a file first.");
  };
  const microphone = async () => {
    if (view.listens) session.stopMicrophone();
    else if (isOpen) setWrong(await session.listen());
  };

  return (
    <div className="playground">
      <section className="ask" aria-labelledby="function-name">
        <h2 id="function-name">{socket.id}</h2>
        {socket.description && <p className="description">{tidy(socket.description)}</p>}
        <p className="hint">
          A websocket: <code className="breaks">{url}</code>
        </p>
        <div className="buttons">
          {/* Not `disabled`: the focus would be lost. */}
          <button type="button" id="connect" className="button primary" aria-disabled={!isIdle || undefined} onClick={() => isIdle && session.connect()}>
            Connect
          </button>
          <button type="button" id="disconnect" className="button" aria-disabled={isIdle || undefined} onClick={() => session.disconnect()}>
            Disconnect
          </button>
        </div>
        <form id="form" onSubmit={submit} onKeyDown={(event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && send()}>
          <div className="field">
            <label htmlFor="message">
              Message <span className="optional">Ctrl+Enter sends it</span>
            </label>
            <textarea id="message" className="mono" rows={4} value={text} spellCheck={false} aria-describedby="session-wrong" onChange={(event) => setText(event.currentTarget.value)} />
            <label className="plain-tick">
              <input type="checkbox" checked={asJson} onChange={(event) => setAsJson(event.currentTarget.checked)} />
              Send it only if it is JSON
            </label>
          </div>
          <div className="buttons">
            <button type="submit" id="send" className="button" aria-disabled={!isOpen || undefined}>
              Send
            </button>
            <button type="button" id="microphone" className="button" aria-disabled={!isOpen || undefined} aria-pressed={view.listens} onClick={() => void microphone()}>
              {view.listens ? "Stop the microphone" : "Send the microphone"}
            </button>
          </div>
          <div className="field">
            <label htmlFor="session-file">
              File <span className="optional">{inPieces ? "as messages of 64 KiB" : `as one message, at most ${bytes(MAX_MESSAGE_BYTES)}`}</span>
            </label>
            <input id="session-file" ref={file} type="file" />
            <label className="plain-tick">
              <input type="checkbox" checked={inPieces} onChange={(event) => setInPieces(event.currentTarget.checked)} />
              In pieces
            </label>
          </div>
          <div className="buttons">
            <button type="button" id="send-file" className="button" aria-disabled={!isOpen || undefined} onClick={() => void sendFile()}>
              Send the file
            </button>
          </div>
          <p className="wrong" id="session-wrong" role="status">
            {wrong}
          </p>
          <p className="hint">The microphone is sent as samples of 16 bits, one channel, 16 kHz.</p>
        </form>
      </section>
      <section className="answer" aria-label="Messages">
        <p className="status" data-status={view.status}>
          <span role="status">
            <span className={`badge ${view.status === "open" ? "running" : view.isWrong ? "failed" : view.status === "over" ? "succeeded" : ""}`}>{WORDS[view.status]}</span>
            {view.ending && <span className="stage">{view.ending}</span>}
          </span>
          {view.runId && (
            <a href={linkTo("runs", view.runId)} title={`Page of run ${view.runId}`}>
              <code>{view.runId.slice(0, 18)}</code>
            </a>
          )}
          <span className="clock">
            {view.sent} sent, {bytes(view.sentBytes)}; {view.received} received, {bytes(view.receivedBytes)}
          </span>
        </p>
        {view.problem && <ProblemNote problem={view.problem} />}
        <Frames frames={view.frames} left={view.sent + view.received - view.frames.length} />
        {IS_PLATFORM && <p className="hint">A session is a run: it is listed, measured and canceled as one. It ends when this page is closed.</p>}
      </section>
      <CodeTabs texts={sessionCode(socket.id, url)} />
    </div>
  );
}

/** The last messages. The list has its room from the beginning, so that nothing moves while it fills. */
function Frames({ frames, left }: { frames: readonly Frame[]; left: number }) {
  const list = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (atEnd.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [frames]);
  return (
    <div
      ref={list}
      className="frames"
      tabIndex={0}
      role="log"
      aria-label="Messages"
      onScroll={(event) => {
        const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
        atEnd.current = scrollTop + clientHeight > scrollHeight - 8;
      }}
    >
      {left > 0 && <p className="hint">{left.toLocaleString()} earlier messages are not shown.</p>}
      {frames.length === 0 && <p className="hint">Messages appear here.</p>}
      {frames.map((each) => (
        <p key={each.number} className={each.isOut ? "frame out" : "frame"}>
          <span className="figures">
            {each.isOut ? "sent" : "received"} {each.isText ? "text" : "bytes"}, {bytes(each.size)}, {(each.ms / 1000).toFixed(2)} s
          </span>
          <code>{each.text}</code>
        </p>
      ))}
    </div>
  );
}
