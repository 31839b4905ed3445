// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Small parts that pages share.

import type { ComponentChildren } from 'preact';
import { Refused } from './api';
import { localeNames, locales, useI18n, type Locale } from './i18n';
import { signInAt } from './session';
import type { StreamState } from './stream';

/** Why something could not be read, in words, with what to do about it. */
export function Trouble({ error, again }: { error: Error; again?: () => void }) {
  const { t } = useI18n();
  if (error instanceof Refused && error.status === 401) return <SignIn />;
  const why = error instanceof Refused
    ? error.status === 403 ? t('notAllowed') : error.status === 404 ? t('notFound') : t('failed', { why: error.message })
    : t('failedOffline');
  return (
    <div class="trouble" role="alert">
      <p>{why}</p>
      {error instanceof Refused && error.status === 403 && error.problem.detail && <p class="minor">{error.problem.detail}</p>}
      {again && <button type="button" onClick={again}>{t('again')}</button>}
    </div>
  );
}

export function SignIn() {
  const { t } = useI18n();
  return (
    <div class="trouble">
      <p>{t('signInFirst')}</p>
      <a class="button" href={signInAt()}>{t('signIn')}</a>
    </div>
  );
}

/** Whether what is shown is of now. */
export function LiveMark({ state }: { state: StreamState }) {
  const { t } = useI18n();
  return <span class={`mark ${state}`} role="status">{t(`state.${state}`)}</span>;
}

export function Languages({ locale, choose }: { locale: Locale; choose(locale: Locale): void }) {
  const { t } = useI18n();
  return (
    <select class="languages" aria-label={t('language')} value={locale} onChange={(event) => choose(event.currentTarget.value as Locale)}>
      {locales.map((l) => <option key={l} value={l} lang={l}>{localeNames[l]}</option>)}
    </select>
  );
}

/** One figure with its name. */
export function Figure({ name, children, note }: { name: string; children: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        {children}
        {note && <small>{note}</small>}
      </dd>
    </div>
  );
}
