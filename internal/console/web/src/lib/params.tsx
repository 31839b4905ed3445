// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Where a view's state lives: filter, sort, page. On a page of its own that is the URL, so that every view can be linked
// and the browser's back works; in a widget it is memory, for the URL is the host's.

import { signal, type ReadonlySignal } from '@preact/signals';
import { createContext } from 'preact';
import { useContext } from 'preact/hooks';

export interface Params {
  readonly path: ReadonlySignal<string>;
  readonly query: ReadonlySignal<URLSearchParams>;
  /** Sets or, with an empty text, removes parameters of the query in place. */
  set(values: Record<string, string>): void;
  /** Goes to a path and query of this page, as a link does. */
  go(href: string): void;
}

export function urlParams(): Params {
  const path = signal(location.pathname);
  const query = signal(new URLSearchParams(location.search));
  const read = () => {
    path.value = location.pathname;
    query.value = new URLSearchParams(location.search);
  };
  addEventListener('popstate', read);
  return {
    path,
    query,
    set(values) {
      const next = new URLSearchParams(location.search);
      for (const [name, value] of Object.entries(values)) {
        if (value) next.set(name, value);
        else next.delete(name);
      }
      const text = next.toString();
      history.replaceState(null, '', location.pathname + (text && `?${text}`));
      read();
    },
    go(href) {
      history.pushState(null, '', href);
      read();
      scrollTo(0, 0);
    },
  };
}

export function memoryParams(): Params {
  const path = signal('');
  const query = signal(new URLSearchParams());
  return {
    path,
    query,
    set(values) {
      const next = new URLSearchParams(query.value);
      for (const [name, value] of Object.entries(values)) {
        if (value) next.set(name, value);
        else next.delete(name);
      }
      query.value = next;
    },
    go(href) {
      const url = new URL(href, 'memory:/');
      path.value = url.pathname;
      query.value = url.searchParams;
    },
  };
}

export const ParamsContext = createContext<Params | null>(null);

export function useParams(): Params {
  const params = useContext(ParamsContext);
  if (!params) throw new Error('no parameters are given here');
  return params;
}

/** One parameter and what sets it. */
export function useParam(name: string, absent = ''): [string, (value: string) => void] {
  const params = useParams();
  return [
    params.query.value.get(name) ?? absent,
    (value) => params.set({ [name]: value === absent ? '' : value }),
  ];
}
