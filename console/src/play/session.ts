// A realtime session of this page: its websocket, and what went which way. It lives on while another function is looked at.

import { ask, currentKey, Trouble, type Problem } from "../server/api";
import type { Socket } from "../server/functions";

export interface Frame {
  number: number;
  /** Whether this page sent it. */
  isOut: boolean;
  isText: boolean;
  /** What is shown of it. */
  text: string;
  size: number;
  /** Since the session was opened. */
  ms: number;
}

export interface SessionView {
  status: "new" | "connecting" | "open" | "over";
  runId: string;
  frames: readonly Frame[];
  sent: number;
  received: number;
  sentBytes: number;
  receivedBytes: number;
  /** How it ended, in words; empty before. */
  ending: string;
  isWrong: boolean;
  problem: Problem | null;
  /** Whether the microphone is being sent. */
  listens: boolean;
}

export const MAX_MESSAGE_BYTES = (16 << 20) - (32 << 10); // as much as both servers take in one
const PIECE_BYTES = 64 << 10;
const MAX_FRAMES = 500;
const MAX_CHARS = 2000;
const MAX_HEX_BYTES = 48;
const HIGH_WATER_BYTES = 1 << 20; // beyond this the socket's own buffer only grows
const RATE = 16_000;

const WORDS: Record<string, string> = {
  completed: "The handler returned.",
  closed: "The handler closed it.",
  worker_draining: "The server stops, or its worker was sent away.",
  idle_timeout: "Nothing was said for too long.",
  slow_consumer: "Messages came faster than this page reads.",
  frame_too_large: "A message was larger than the server takes.",
  worker_lost: "Its worker is gone. Connect again.",
  leader_lost: "The leading node is gone. Connect again.",
  expired: "No worker was free in time.",
  key_revoked: "The key that opened it was revoked.",
  key_expired: "The key that opened it has expired.",
  overloaded: "Too many wait already. Try again later.",
  budget_exhausted: "A budget of this key is spent.",
  max_concurrency_reached: "The worker has no free slot. Try again later.",
  function_concurrency_reached: "This function has no free slot. Try again later.",
};

const NEW: SessionView = { status: "new", runId: "", frames: [], sent: 0, received: 0, sentBytes: 0, receivedBytes: 0, ending: "", isWrong: false, problem: null, listens: false };

export class Session {
  private view: SessionView = NEW;
  private frames: Frame[] = [];
  private socket: WebSocket | null = null;
  private beganMs = 0;
  private counter = 0;
  private listeners = new Set<() => void>();
  private isDue = false;
  private stopListening: (() => void) | null = null;

  constructor(readonly target: Socket) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): SessionView => this.view;

  connect(): void {
    if (this.view.status === "connecting" || this.view.status === "open") return;
    const runId = newId();
    this.frames = [];
    this.counter = 0;
    this.change({ ...NEW, status: "connecting", runId });
    const url = `${location.origin.replace(/^http/, "ws")}${this.target.path}?run_id=${runId}`;
    const key = currentKey();
    // A page can send no header with a websocket: the key goes as a subprotocol.
    const socket = new WebSocket(url, key ? ["cozy.realtime", `cozy.key.${key}`] : []);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.beganMs = performance.now();
      this.change({ status: "open" });
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => this.add(event.data, false);
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.stopListening?.();
      const isWrong = event.code !== 1000 && event.code !== 1005;
      const words = WORDS[event.reason] ?? (event.reason.startsWith("error:") ? `The handler failed with ${event.reason.slice("error:".length)}.` : "");
      const ending = words || (isWrong ? "The connection broke off." : "This page closed it.");
      this.change({ status: "over", isWrong, ending: `${ending} (${event.code}${event.reason ? ` ${event.reason}` : ""})` });
      if (!opened) void this.findWhy();
    };
  }

  disconnect(): void {
    this.socket?.close(1000);
  }

  sendText(text: string): void {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(text);
    this.add(text, true);
  }

  /** Whether it went: not while the connection takes nothing, as sound that is late is worth nothing. */
  sendBytes(data: ArrayBuffer): boolean {
    const socket = this.socket;
    if (socket?.readyState !== WebSocket.OPEN || socket.bufferedAmount > HIGH_WATER_BYTES) return false;
    socket.send(data);
    this.add(data, true);
    return true;
  }

  /** Send a file, in pieces or as one message. Gives why not, empty where it went. */
  async sendFile(file: File, inPieces: boolean): Promise<string> {
    if (!inPieces && file.size > MAX_MESSAGE_BYTES) return `${file.name} has ${file.size.toLocaleString()} bytes; one message takes at most ${MAX_MESSAGE_BYTES.toLocaleString()}. Send it in pieces.`;
    const step = inPieces ? PIECE_BYTES : Math.max(1, file.size);
    for (let at = 0; at < Math.max(1, file.size); at += step) {
      const data = await file.slice(at, at + step).arrayBuffer();
      while (this.socket?.readyState === WebSocket.OPEN && !this.sendBytes(data)) await new Promise((done) => setTimeout(done, 20)); // the socket tells nobody that it has room
      if (this.socket?.readyState !== WebSocket.OPEN) return "The session ended before all of the file was sent.";
    }
    return "";
  }

  /** Send what the microphone hears: samples of 16 bits, one channel, 16 kHz. Gives why not, empty where it does. */
  async listen(): Promise<string> {
    if (!navigator.mediaDevices) return "The browser gives pages the microphone only at https:// addresses and at localhost.";
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      return `The microphone cannot be used: ${(error as Error).message}`;
    }
    if (this.socket?.readyState !== WebSocket.OPEN) {
      stream.getTracks().forEach((each) => each.stop());
      return "";
    }
    const context = new AudioContext({ sampleRate: RATE });
    const source = context.createMediaStreamSource(stream);
    // An AudioWorklet would be a file of its own; for a page that tries things this does.
    const tap = context.createScriptProcessor(2048, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) => {
      const heard = inputBuffer.getChannelData(0);
      const samples = Int16Array.from(heard, (each) => Math.max(-1, Math.min(1, each)) * 0x7fff);
      this.sendBytes(samples.buffer);
    };
    source.connect(tap);
    tap.connect(context.destination);
    this.stopListening = () => {
      this.stopListening = null;
      stream.getTracks().forEach((each) => each.stop());
      void context.close();
      this.change({ listens: false });
    };
    this.change({ listens: true });
    return "";
  }

  stopMicrophone(): void {
    this.stopListening?.();
  }

  /** A handshake that was refused tells a page nothing: an ordinary request to the same address does. */
  private async findWhy(): Promise<void> {
    try {
      await ask(this.target.path);
    } catch (error) {
      if (error instanceof Trouble && error.problem.status !== 426) this.change({ problem: error.problem });
    }
  }

  private add(data: string | ArrayBuffer, isOut: boolean): void {
    const isText = typeof data === "string";
    const size = isText ? new TextEncoder().encode(data).length : data.byteLength;
    this.counter += 1;
    this.frames.push({ number: this.counter, isOut, isText, text: isText ? short(data) : textOf(data), size, ms: performance.now() - this.beganMs });
    if (this.frames.length > MAX_FRAMES) this.frames.splice(0, this.frames.length - MAX_FRAMES);
    const view = this.view;
    this.view = isOut ? { ...view, sent: view.sent + 1, sentBytes: view.sentBytes + size } : { ...view, received: view.received + 1, receivedBytes: view.receivedBytes + size };
    this.tellSoon();
  }

  private change(part: Partial<SessionView>): void {
    this.view = { ...this.view, ...part, frames: [...this.frames] };
    for (const listener of this.listeners) listener();
  }

  /** A flood of messages is shown as often as the browser paints. */
  private tellSoon(): void {
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => {
      this.isDue = false;
      this.change({});
    }, 50);
  }
}

function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");
}

function short(text: string): string {
  return text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS)}…` : text;
}

/** Bytes as the text that they are, else in hexadecimal. */
function textOf(data: ArrayBuffer): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data.byteLength > MAX_CHARS ? data.slice(0, MAX_CHARS) : data);
    if (!/[\0-\x08\x0e-\x1f]/.test(text)) return data.byteLength > MAX_CHARS ? `${text}…` : text;
  } catch {
    // no text, or cut within a character
  }
  const shown = [...new Uint8Array(data.slice(0, MAX_HEX_BYTES))].map((each) => each.toString(16).padStart(2, "0")).join(" ");
  return data.byteLength > MAX_HEX_BYTES ? `${shown} …` : shown;
}
