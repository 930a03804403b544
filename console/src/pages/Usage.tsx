// What runs have used, and what that cost: sums of days, keys or functions.

import { useState } from "react";
import { usePoll } from "../server/usePoll";
import { bytes, ProblemNote } from "../ui/parts";
import { Scroll } from "../ui/table";

interface Sums {
  runs: number;
  failed: number;
  gpu_seconds: number;
  cpu_seconds: number;
  cold_share: number;
  downloaded_bytes: number;
  loaded_bytes: number;
  cost: number | null;
  unpriced: number;
}

type Group = Sums & { day?: string; key?: string; name?: string; function?: string };

interface Used {
  from: string;
  to: string;
  currency: string | null;
  data: Group[];
  total: Sums;
}

const BY = ["function", "key", "day"] as const;
const HEADS = ["Runs", "Failed", "GPU seconds", "CPU seconds", "Waited cold", "Downloaded", "Loaded"];

export function Usage() {
  const [by, setBy] = useState<(typeof BY)[number]>("function");
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const query = new URLSearchParams({ by, ...(from && { from }), ...(to && { to }) }).toString();
  const { data, problem, again } = usePoll<Used>(`/v1/usage?${query}`, 10_000);
  const currency = data?.currency;
  const cells = (sums: Sums) => (
    <>
      {[sums.runs, sums.failed, seconds(sums.gpu_seconds), seconds(sums.cpu_seconds), `${Math.round(sums.cold_share * 100)} %`, bytes(sums.downloaded_bytes), bytes(sums.loaded_bytes)].map((each, index) => (
        <td key={index} className="figure number-cell">
          {each}
        </td>
      ))}
      {currency && (
        <td className="figure number-cell">
          {sums.cost === null ? "no price" : `${sums.cost.toFixed(4)} ${currency}`}
          {sums.cost !== null && sums.unpriced > 0 && <span className="optional"> and {sums.unpriced} runs without a price</span>}
        </td>
      )}
    </>
  );
  return (
    <>
      <h2>Usage</h2>
      <div className="filters">
        <label>
          By
          <select value={by} onChange={(event) => setBy(event.currentTarget.value as (typeof BY)[number])}>
            {BY.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <label>
          From
          <input type="date" value={from} onChange={(event) => setFrom(event.currentTarget.value)} />
        </label>
        <label>
          To
          <input type="date" value={to} onChange={(event) => setTo(event.currentTarget.value)} />
        </label>
      </div>
      {problem && <ProblemNote problem={problem} retry={again} />}
      {data && (
        <>
          <p className="hint">
            Runs that ended from {data.from} to {data.to}, in UTC. {!currency && "There is no price table, so there are no costs."}
          </p>
          <Scroll label="Usage">
            <table>
              <thead>
                <tr>
                  <th scope="col">{by === "function" ? "Function" : by === "key" ? "Key" : "Day"}</th>
                  {HEADS.map((each) => (
                    <th key={each} scope="col" className="number-cell">
                      {each}
                    </th>
                  ))}
                  {currency && (
                    <th scope="col" className="number-cell">
                      Cost
                    </th>
                  )}
                </tr>
              </thead>
              <tbody>
                {data.data.map((each) => (
                  <tr key={each[by]}>
                    <td>
                      {each[by] || "no key"} {by === "key" && each.name && <span className="optional">{each.name}</span>}
                    </td>
                    {cells(each)}
                  </tr>
                ))}
              </tbody>
              <tfoot>
                <tr>
                  <th scope="row">all</th>
                  {cells(data.total)}
                </tr>
              </tfoot>
            </table>
          </Scroll>
        </>
      )}
    </>
  );
}

const seconds = (value: number): string => value.toFixed(value < 100 ? 1 : 0);
