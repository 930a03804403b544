// The console: where we are, and what the server says now.

import { lazy, Suspense, useCallback, useEffect, useRef, useState, type ReactNode } from "react";
import { go, linkTo, usePlace } from "./place";
import { Playground } from "./play/Playground";
import { Session } from "./play/session";
import { SessionPane } from "./play/SessionPane";
import { useForms } from "./play/form";
import type { Run } from "./run/run";
import { currentKey, IS_PLATFORM } from "./server/api";
import type { Catalogue, Fn, Socket } from "./server/functions";
import { useServer, type ServerState } from "./server/useServer";
import { Boundary } from "./ui/Boundary";
import { Login } from "./ui/Login";
import { ProblemNote } from "./ui/parts";
import { ThemeSwitch } from "./ui/Theme";

const Pages = lazy(() => import("./pages/Pages"));

/** The pages and their names, in the order in which they are shown. */
const PAGES: [string, string][] = [
  ["run", "Functions"],
  ["history", "History"],
  ["runs", "Runs"],
  ...(IS_PLATFORM
    ? ([
        ["endpoints", "Endpoints"],
        ["workers", "Workers"],
        ["builds", "Builds"],
        ["usage", "Usage"],
        ["keys", "Keys"],
      ] as [string, string][])
    : ([["models", "Models"]] as [string, string][])),
];

const NONE: Catalogue = { title: "", functions: [], sockets: [], definitions: {} };

export function App() {
  const server = useServer();
  const place = usePlace();
  const catalogue = server.catalogue ?? NONE;
  const forms = useForms(catalogue.definitions);
  // The last run of each function: one that goes on is not disturbed by a look at another function.
  const [runs, setRuns] = useState<ReadonlyMap<string, Run>>(new Map());
  // Open sessions of websockets, for the same reason.
  const [sessions] = useState(() => new Map<string, Session>());
  const lastPlace = useRef<object | null>(null);
  const socket = catalogue.sockets.find((each) => each.id === place.about) ?? (catalogue.functions.length ? undefined : catalogue.sockets[0]);
  const fn = socket ? undefined : catalogue.functions.find((each) => each.id === place.about) ?? catalogue.functions[0];
  const keep = useCallback((run: Run) => setRuns((all) => new Map(all).set(run.view.fn, run)), []);
  const title = server.catalogue ? (IS_PLATFORM ? "Platform" : server.catalogue.title) : "Console";
  const here = place.page === "run" ? (fn?.id ?? socket?.id ?? "") : [PAGES.find(([page]) => page === place.page)?.[1] ?? place.page, place.about].filter(Boolean).join(" ");
  useEffect(() => {
    document.title = here ? `${here} · ${title}` : title;
  }, [title, here]);

  useEffect(() => {
    // Who followed a link that is gone with its page goes on reading at the top of the new one, and not at the top of the document.
    if (document.activeElement === document.body && lastPlace.current !== null) document.getElementById("main")?.focus({ preventScroll: true });
    lastPlace.current = place;
  }, [place.page, place.about]);

  function page(): ReactNode {
    if (place.page === "run") return playground();
    return (
      <Suspense fallback={<p className="hint">Loading…</p>}>
        <Pages
          place={place}
          onRun={keep}
          onUse={(id, input) => {
            const found = catalogue.functions.find((each) => each.id === id);
            if (found) forms.fill(found, input);
            go("run", id);
          }}
        />
      </Suspense>
    );
  }

  function sessionOf(target: Socket): Session {
    const known = sessions.get(target.id);
    if (known?.target.path === target.path) return known;
    const made = new Session(target);
    sessions.set(target.id, made);
    return made;
  }

  function playground(): ReactNode {
    return (
      <div className="with-list">
            <FunctionList functions={catalogue.functions} sockets={catalogue.sockets} current={fn ?? socket} />
            <div className="work">
              {server.catalogue && place.about && (fn ?? socket) && (fn ?? socket)?.id !== place.about && (
                <p className="hint" role="status">
                  There is no function {place.about}. This is {(fn ?? socket)?.id}.
                </p>
              )}
              {fn && (
                <Boundary key={fn.id}>
                  <Playground fn={fn} definitions={catalogue.definitions} forms={forms} run={runs.get(fn.id)} onRun={keep} />
                </Boundary>
              )}
              {socket && (
                <Boundary key={socket.id}>
                  <SessionPane key={socket.id} socket={socket} session={sessionOf(socket)} />
                </Boundary>
              )}
              {server.catalogue && !fn && !socket && <p className="hint">There are no functions yet.</p>}
            </div>
          </div>
    );
  }

  return (
    <>
      <a className="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to the content
      </a>
      <header className="top">
        <h1>{title}</h1>
        <nav aria-label="Pages" className="pages">
          {PAGES.map(([page, name]) => (
            <a key={page} href={linkTo(page)} aria-current={page === place.page || (page === "endpoints" && place.page === "releases") ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        {!currentKey() && !server.needsKey && (
          <a className="quiet" href="/openapi.json">
            openapi.json
          </a>
        )}
        <ThemeSwitch />
      </header>
      <Banner server={server} />
      <main id="main" tabIndex={-1}>
        {server.needsKey ? (
          <Login problem={currentKey() ? server.trouble : null} onKey={server.retry} />
        ) : (
          <Boundary key={place.page === "run" ? "run" : `${place.page} ${place.about}`}>{page()}</Boundary>
        )}
      </main>
    </>
  );
}

function Banner({ server }: { server: ServerState }) {
  return (
    <div className="banners">
      {server.trouble && !server.needsKey && <ProblemNote problem={server.trouble} retry={server.retry} />}
      {server.codeProblem && (
        <div className="problem" role="alert">
          <p>The code as it is now has a mistake. What worked last is served.</p>
          <pre>{server.codeProblem}</pre>
        </div>
      )}
    </div>
  );
}

const MANY = 12;

interface Listed {
  id: string;
  isSocket: boolean;
}

function FunctionList({ functions, sockets, current }: { functions: Fn[]; sockets: Socket[]; current: Fn | Socket | undefined }) {
  const [filter, setFilter] = useState("");
  const all: Listed[] = [...functions.map(({ id }) => ({ id, isSocket: false })), ...sockets.map(({ id }) => ({ id, isSocket: true }))].sort((a, b) => (groupOf(a.id) < groupOf(b.id) ? -1 : groupOf(a.id) > groupOf(b.id) ? 1 : 0));
  if (all.length === 0) return null;
  const shown = all.filter((each) => each.id.includes(filter));
  // By endpoint, where there are some: `owner/endpoint/function:tag`.
  const groups = new Map<string, Listed[]>();
  for (const each of shown) groups.set(groupOf(each.id), [...(groups.get(groupOf(each.id)) ?? []), each]);
  return (
    <nav aria-label="Functions" className="functions">
      <div className="wide">
        {all.length > MANY && <input type="search" aria-label="Show functions with" placeholder="filter" autoComplete="off" spellCheck={false} value={filter} onChange={(event) => setFilter(event.currentTarget.value.trim())} />}
        {[...groups].map(([group, members]) => (
          <div key={group}>
            {group && <p className="group-name">{group}</p>}
            <ul>
              {members.map((each) => (
                <li key={each.id}>
                  <a href={linkTo("run", each.id)} title={group ? each.id : undefined} aria-current={each.id === current?.id ? "page" : undefined}>
                    {group ? each.id.slice(group.length + 1) : each.id}
                    {each.isSocket && <span className="kind"> websocket</span>}
                  </a>
                </li>
              ))}
            </ul>
          </div>
        ))}
        {shown.length === 0 && <p className="hint">None.</p>}
      </div>
      <label className="narrow">
        Function
        <select value={current?.id} onChange={(event) => go("run", event.currentTarget.value)}>
          {all.map((each) => (
            <option key={each.id} value={each.id}>
              {each.id}
              {each.isSocket ? " (websocket)" : ""}
            </option>
          ))}
        </select>
      </label>
    </nav>
  );
}

function groupOf(id: string): string {
  return id.slice(0, Math.max(0, id.lastIndexOf("/")));
}
