// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What a page of our own stands in: its language, its parameters, its session and its keys.

import { signal } from '@preact/signals';
export { useApi } from './api-context';
import { createContext, render, type ComponentChildren, type ComponentType } from 'preact';
import { useContext, useEffect } from 'preact/hooks';
import { makeApi } from './api';
import { ApiContext } from './api-context';
import { choose, I18nContext, locales, makeI18n, type Catalogue, type Locale } from './i18n';
import { ParamsContext, urlParams } from './params';
import { useResource } from './resource';
import { whoAmI, type Session } from './session';

const SessionContext = createContext<Session | null>(null);

/** Who has signed in, or null. */
export function useSession(): Session | null {
  return useContext(SessionContext);
}

// A choice of language stays with the browser; nothing else is kept there.
const kept = 'usage.language';
function firstLocale(): Locale {
  const asked = new URLSearchParams(location.search).get('lang') ?? localStorage.getItem(kept);
  return locales.find((l) => l === asked) ?? choose(navigator.languages);
}

const locale = signal<Locale>(firstLocale());

/** The language, and what changes it. */
export function useLocale(): [Locale, (locale: Locale) => void] {
  const { set } = useContext(ParamsContext)!;
  return [
    locale.value,
    (next) => {
      localStorage.setItem(kept, next);
      set({ lang: '' });
      locale.value = next;
    },
  ];
}

function Frame<K extends string>(props: { texts: Record<Locale, Catalogue<K>>; children: ComponentChildren }) {
  const i18n = makeI18n(locale.value, props.texts);
  useEffect(() => {
    document.documentElement.lang = i18n.locale;
  }, [i18n.locale]);
  const { data, error, loading } = useResource('session', whoAmI);
  return (
    <I18nContext.Provider value={i18n as never}>
      <SessionContext.Provider value={data ?? null}>
        {loading && !data && !error ? null : props.children}
      </SessionContext.Provider>
    </I18nContext.Provider>
  );
}

/** Shows a page with its texts. */
export function show<K extends string>(Page: ComponentType, texts: Record<Locale, Catalogue<K>>): void {
  render(
    <ApiContext.Provider value={makeApi('')}>
      <ParamsContext.Provider value={urlParams()}>
        <Frame texts={texts}>
          <Page />
        </Frame>
      </ParamsContext.Provider>
    </ApiContext.Provider>,
    document.getElementById('page')!,
  );
}
