// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Pages by path. A page is an entry of a list: its path below the base, its title and what it shows.

import type { ComponentChildren, ComponentType } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { useParams } from './params';

export interface Route {
  /** Below the router's base: '' is the first page, 'users', 'users/:id'. */
  path: string;
  /** The props are what the path's :names stand for. */
  page: ComponentType<Record<string, string>>;
}

/** What a path's pattern makes of a path, or null where it is another one. */
export function match(pattern: string, path: string): Record<string, string> | null {
  const want = pattern.split('/').filter(Boolean);
  const got = path.split('/').filter(Boolean);
  if (want.length !== got.length) return null;
  const names: Record<string, string> = {};
  for (const [i, part] of want.entries()) {
    const text = got[i]!;
    if (part.startsWith(':')) {
      try {
        names[part.slice(1)] = decodeURIComponent(text);
      } catch {
        return null;
      }
    } else if (part !== text) return null;
  }
  return names;
}

export function Router({ base, routes, missing }: { base: string; routes: readonly Route[]; missing: ComponentType }) {
  const params = useParams();
  const path = params.path.value;
  const before = useRef(path);
  useEffect(() => {
    // What had the focus is gone with the page before: a keyboard and who listens go on with this one.
    if (before.current !== path) document.querySelector<HTMLElement>('main')?.focus({ preventScroll: true });
    before.current = path;
    const heading = document.querySelector<HTMLElement>('main h1');
    if (heading) document.title = heading.textContent ?? document.title;
  }, [path]);
  if (path === base || path.startsWith(`${base}/`)) {
    for (const route of routes) {
      const names = match(route.path, path.slice(base.length));
      if (names) return <route.page key={path} {...names} />;
    }
  }
  const Missing = missing;
  return <Missing />;
}

/** A link to a page of this router: no load, but a link all the same (opens in a new tab, can be copied). */
export function Link(props: { href: string; class?: string; current?: boolean; children: ComponentChildren }) {
  const params = useParams();
  return (
    <a
      href={props.href}
      class={props.class}
      aria-current={props.current ? 'page' : undefined}
      onClick={(event) => {
        if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        params.go(props.href);
      }}
    >
      {props.children}
    </a>
  );
}
