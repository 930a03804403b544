// Small parts that every page uses.

import { useCallback, useEffect, useRef, useState, type ReactNode } from "react";
import { Button } from "react-aria-components/Button";
import type { Problem } from "../server/api";

/** A problem in words, with what to do about it. */
export function ProblemNote({ problem, retry }: { problem: Problem; retry?: () => void }) {
  const text = problem.detail || problem.title || "it failed";
  return (
    <div className="problem" role="alert">
      <p>
        {text}
        {problem.code && !text.includes(problem.code) && <code className="code">{problem.code}</code>}
      </p>
      {problem.hint && <pre>{problem.hint}</pre>}
      {retry && (
        <Button className="button" onPress={retry}>
          Try again
        </Button>
      )}
    </div>
  );
}

/** What appears far from where somebody looks is brought into view, such as why a dialog's button did nothing. */
export function Seen({ children }: { children: ReactNode }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    place.current?.scrollIntoView({ block: "nearest" }); // its promise is no cleanup
  }, []);
  return <div ref={place}>{children}</div>;
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(""), 2000);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = useCallback(() => {
    navigator.clipboard?.writeText(text).then(
      () => setSaid("Copied"),
      () => setSaid("Select the text and copy it: the browser refused"),
    ) ?? setSaid("Select the text and copy it: the page has no secure address");
  }, [text]);
  return (
    <Button className="button small" onPress={copy}>
      <span aria-live="polite">{said || label}</span>
    </Button>
  );
}

/** A block of text that keeps its lines. With `follow` it stays at its end while it grows, unless somebody has scrolled up. */
export function Block({ children, follow = false, className = "", label }: { children: string; follow?: boolean; className?: string; label: string }) {
  const pre = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (follow && atEnd.current && pre.current) pre.current.scrollTop = pre.current.scrollHeight;
  }, [children, follow]);
  return (
    <pre
      ref={pre}
      className={className}
      tabIndex={0}
      role="region"
      aria-label={label}
      onScroll={(event) => {
        const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
        atEnd.current = scrollTop + clientHeight > scrollHeight - 8;
      }}
    >
      {children}
    </pre>
  );
}

/** What is inside is made when it is opened: `render` for what is costly. */
export function Details({ summary, children, render, open = false }: { summary: ReactNode; children?: ReactNode; render?: () => ReactNode; open?: boolean }) {
  const [isOpen, setOpen] = useState(open);
  return (
    <details open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{summary}</summary>
      {isOpen && (render ? render() : children)}
    </details>
  );
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(1)} kB`;
  if (count < 1e9) return `${(count / 1e6).toFixed(1)} MB`;
  return `${(count / 1e9).toFixed(2)} GB`;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

export function timeLeft(seconds: number): string {
  if (seconds < 1.5) return "about a second left";
  if (seconds < 90) return `about ${Math.round(seconds)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

export const pretty = (value: unknown): string => JSON.stringify(value, null, 2);
