// What is left of a page that broke: the rest of the console goes on, and says so.

import { Component, type ReactNode } from "react";
import { ProblemNote } from "./parts";

/** Give it a `key` of what it shows, so that another page begins anew. */
export class Boundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error): { error: Error } {
    return { error };
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    const problem = { detail: "This part of the console broke. Nothing on the server has changed by that.", hint: String(error) };
    return <ProblemNote problem={problem} retry={() => this.setState({ error: null })} />;
  }
}
