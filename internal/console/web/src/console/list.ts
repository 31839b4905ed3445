// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A list of the service that is shown page by page: nothing is read that is not shown.

import { useEffect, useRef, useState } from 'preact/hooks';

export interface List<P> {
  pages: readonly P[] | undefined;
  error: Error | undefined;
  /** Present as long as the service has more. */
  more: (() => void) | undefined;
  /** Reads it again from its start; what is shown stays until then. */
  reload(): void;
}

/** Does something again and again, for as long as `on` and the page is looked at. */
export function useAgain(milliseconds: number, run: () => void, on: boolean): void {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, milliseconds);
    return () => clearInterval(timer);
  }, [on, milliseconds]);
}

/** Reads the first page, anew when the key changes, and the next one each time that more is asked for. */
export function useList<P extends { next_cursor?: string }>(
  key: string, page: (cursor: { cursor?: string }, signal: AbortSignal) => Promise<P>,
): List<P> {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState<{ key: string; pages?: readonly P[]; error?: Error }>({ key });
  const latest = useRef(page);
  latest.current = page;
  const stop = useRef(new AbortController());
  const read = (before: readonly P[], cursor: { cursor?: string }) => {
    const { signal } = stop.current;
    latest.current(cursor, signal).then(
      (next) => {
        if (!signal.aborted) setState({ key, pages: [...before, next] });
      },
      (error: unknown) => {
        if (signal.aborted) return;
        const cause = error instanceof Error ? error : new Error(String(error));
        setState((was) => ({ ...(was.key === key ? was : { key }), error: cause }));
      },
    );
  };
  useEffect(() => {
    stop.current = new AbortController();
    read([], {});
    return () => stop.current.abort();
  }, [key, turn]);
  const pages = state.key === key ? state.pages : undefined;
  const cursor = pages?.at(-1)?.next_cursor;
  return {
    pages,
    error: state.key === key ? state.error : undefined,
    more: pages && cursor ? () => read(pages, { cursor }) : undefined,
    reload: () => setTurn((n) => n + 1),
  };
}
