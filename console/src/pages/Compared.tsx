// What came of copies of runs on another release: counts, times of both sides, and where outputs differ, side by side.

import { linkTo } from "../place";
import { duration } from "../ui/parts";
import { Head, Scroll } from "../ui/table";
import type { Compared, Difference } from "./shapes";

const COUNTS = ["equal", "different", "failed"] as const;

/** `label` says of what, for who hears the names of tables. */
export function ComparedNote({ found, label }: { found: Compared; label: string }) {
  const { tag, release } = found.seconds;
  return (
    <>
      {found.compared > 0 && (
        <div className="timeline thin" aria-hidden="true">
          {COUNTS.filter((each) => found[each] > 0).map((each) => (
            <span key={each} className={`phase ${each}`} style={{ flexGrow: found[each] / found.compared }} />
          ))}
        </div>
      )}
      <ul className="legend">
        <li>
          <strong className="figure">{found.compared}</strong> compared
        </li>
        {COUNTS.map((each) => (
          <li key={each}>
            <span className={`dot ${each}`} aria-hidden="true" />
            {each} <span className="figure">{found[each]}</span>
          </li>
        ))}
        {found.dropped > 0 && (
          <li className="optional">
            not copied, as there was no room <span className="figure">{found.dropped}</span>
          </li>
        )}
      </ul>
      {tag.p50 !== null && release.p50 !== null && (
        <Scroll label={`Times: ${label}`}>
          <table className="narrow-table">
            <thead>
              <tr>
                <th scope="col">Took</th>
                <th scope="col">Half of the runs at most</th>
                <th scope="col">95 % at most</th>
              </tr>
            </thead>
            <tbody>
              <Times name="the tag's release" p50={tag.p50} p95={tag.p95} />
              <Times name="the copies" p50={release.p50} p95={release.p95} />
            </tbody>
          </table>
        </Scroll>
      )}
      {found.by_digest > 0 && (
        <p className="hint">
          {found.by_digest} images were compared by their digests alone: {found.images === "pixels" ? "they could not be decoded." : "pillow is not installed where the platform runs."}
        </p>
      )}
      <Examples found={found} label={label} />
    </>
  );
}

function Times({ name, p50, p95 }: { name: string; p50: number; p95: number | null }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td className="figure">{duration(p50 * 1000)}</td>
      <td className="figure">{p95 === null ? "" : duration(p95 * 1000)}</td>
    </tr>
  );
}

/** Runs whose copy gave something else: each place of the output, with what either side has there. */
function Examples({ found, label }: { found: Compared; label: string }) {
  if (!found.examples.length) return null;
  return (
    <Scroll label={`What differed: ${label}`}>
      <table className="diff places">
        <Head columns={["Run", "Place", "the tag's release", "the copy"]} />
        <tbody>
          {found.examples.flatMap((each) => {
            const run = (
              <a href={linkTo("runs", each.run_id)} title={each.run_id}>
                {each.run_id.slice(0, 18)}
              </a>
            );
            if (each.error)
              return (
                <tr key={each.run_id} className="differs">
                  <td>{run}</td>
                  <td />
                  <td>succeeded</td>
                  <td className="wrong">failed: {each.error}</td>
                </tr>
              );
            return each.differences.map((place, index) => (
              <tr key={`${each.run_id} ${index}`} className="differs">
                <td>{index === 0 && run}</td>
                <Place place={place} />
              </tr>
            ));
          })}
        </tbody>
      </table>
    </Scroll>
  );
}

/** Places of an output, with what was expected there and what came. */
export function Differences({ rows, label }: { rows: Difference[]; label: string }) {
  if (!rows.length) return null;
  return (
    <Scroll label={`What differed: ${label}`}>
      <table className="diff places">
        <Head columns={["Place", "expected", "given"]} />
        <tbody>
          {rows.map((each, index) => (
            <tr key={index} className="differs">
              <Place place={each} />
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Place({ place }: { place: Difference }) {
  return (
    <>
      <td>{place.pointer || "(the whole)"}</td>
      <td>{textOf(place.expected)}</td>
      <td>{textOf(place.actual)}</td>
    </>
  );
}

const textOf = (value: unknown): string => (value === undefined || value === null ? "null" : JSON.stringify(value));
