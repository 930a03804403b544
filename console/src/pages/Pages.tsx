// All pages but the playground: read when one of them is first looked at.

import type { Place } from "../place";
import type { Run } from "../run/run";
import type { Json } from "../schema/resolve";
import { BuildPage, Builds } from "./Builds";
import { Compare } from "./Compare";
import { DevModels } from "./DevModels";
import { Endpoint } from "./Endpoint";
import { Endpoints } from "./Endpoints";
import { History } from "./History";
import { Keys } from "./Keys";
import { ReleasePage } from "./ReleasePage";
import { RunPage } from "./RunPage";
import { Runs } from "./Runs";
import { Usage } from "./Usage";
import { WorkerPage, Workers } from "./Workers";

interface Props {
  place: Place;
  onUse: (fn: string, input: Json) => void;
  onRun: (run: Run) => void;
}

export default function Pages({ place: { page, about }, onUse, onRun }: Props) {
  switch (page) {
    case "runs":
      return about ? <RunPage key={about} id={about} onUse={onUse} /> : <Runs />;
    case "history":
      return <History onUse={onUse} onRun={onRun} />;
    case "compare":
      return <Compare key={about} about={about} />;
    case "endpoints":
      return about ? <Endpoint key={about} name={about} /> : <Endpoints />;
    case "releases":
      return about ? <ReleasePage key={about} id={about} /> : <Endpoints />;
    case "workers":
      return about ? <WorkerPage key={about} id={about} /> : <Workers />;
    case "builds":
      return about ? <BuildPage key={about} id={about} /> : <Builds />;
    case "usage":
      return <Usage />;
    case "models":
      return <DevModels />;
    case "keys":
      return <Keys />;
    default:
      return <p className="hint">There is no page {page}.</p>;
  }
}
