// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Something that is read from the API for as long as a component is shown.

import { useEffect, useRef, useState } from 'preact/hooks';

export interface Resource<T> {
  data?: T;
  error?: Error;
  loading: boolean;
  /** Reads it again; what is shown stays until then. */
  reload(): void;
}

/** Reads when it is first shown and whenever the key changes; an answer to an older key is dropped. */
export function useResource<T>(key: string, read: (signal: AbortSignal) => Promise<T>): Resource<T> {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState<{ key: string; data?: T; error?: Error; loading: boolean }>({ key, loading: true });
  const latest = useRef(read);
  latest.current = read;
  useEffect(() => {
    const stop = new AbortController();
    setState((was) => (was.key === key ? { ...was, loading: true } : { key, loading: true }));
    latest.current(stop.signal).then(
      (data) => {
        if (!stop.signal.aborted) setState({ key, data, loading: false });
      },
      (error: unknown) => {
        if (stop.signal.aborted) return;
        const cause = error instanceof Error ? error : new Error(String(error));
        setState((was) => ({ ...was, error: cause, loading: false }));
      },
    );
    return () => stop.abort();
  }, [key, turn]);
  return { ...state, reload: () => setTurn((n) => n + 1) };
}
