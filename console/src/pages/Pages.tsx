// All pages but the playground: read when one of them is first looked at.

import type { Place } from "../place";
import type { Json } from "../schema/resolve";
import { RunPage } from "./RunPage";
import { Runs } from "./Runs";

export default function Pages({ place, onUse }: { place: Place; onUse: (fn: string, input: Json) => void }) {
  switch (place.page) {
    case "runs":
      return place.about ? <RunPage key={place.about} id={place.about} onUse={onUse} /> : <Runs />;
    default:
      return <p className="hint">There is no page {place.page}.</p>;
  }
}
