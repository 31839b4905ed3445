// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Lists that follow where the user stands. They are read when they come into view, and anew when something has changed;
// not too often, and not from the last of the user's calls, which the user's own programs need.

import { useEffect, useRef, useState } from 'preact/hooks';
import { Refused } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from '../lib/i18n';
import type { UsageKey } from '../i18n';
import { useResource, type Resource } from '../lib/resource';

/** Between two readings that nobody asked for. */
const PAUSE = 5000;
/** Below this share of the user's calls nothing is read that nobody asked for. */
const SPARE = 0.5;

export interface Fresh<T> extends Resource<T> {
  /** Put on the element whose coming into view starts the first reading. */
  place: { current: HTMLElement | null };
  /** Something has changed since it was read, and will not be read unless somebody asks. */
  stale: boolean;
}

/** `version` stands for what the list depends on: when it changes, the list is read again. */
export function useFresh<T>(key: string, version: string, read: (signal: AbortSignal) => Promise<T>): Fresh<T> {
  const api = useApi();
  const place = useRef<HTMLElement>(null);
  const [seen, setSeen] = useState(false);
  const [at, setAt] = useState({ version, when: 0 });
  useEffect(() => {
    const watch = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        setSeen(true);
        watch.disconnect();
      }
    }, { rootMargin: '200px' });
    if (place.current) watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  const spare = api.left.value >= SPARE;
  const resource = useResource<T | undefined>(seen ? key : '', async (signal) => {
    if (!seen) return undefined;
    setAt({ version, when: Date.now() });
    return read(signal);
  });
  const changed = seen && at.when > 0 && at.version !== version;
  useEffect(() => {
    if (!changed || !spare) return;
    const timer = setTimeout(resource.reload, Math.max(0, at.when + PAUSE - Date.now()));
    return () => clearTimeout(timer);
  }, [changed, spare, version]);
  // What the service did not answer is asked again by itself; what it refused is not.
  const { error } = resource;
  useEffect(() => {
    if (!error || error instanceof Refused) return;
    const timer = setTimeout(resource.reload, 2 * PAUSE);
    return () => clearTimeout(timer);
  }, [error]);
  return { ...resource, place, stale: changed && !spare } as Fresh<T>;
}

export function Stale({ of }: { of: { stale: boolean; reload(): void } }) {
  const { t } = useI18n<UsageKey>();
  if (!of.stale) return null;
  return (
    <p class="minor">
      {t('stale')} <button type="button" class="quiet" onClick={of.reload}>{t('readAgain')}</button>
    </p>
  );
}
