// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What the console's pages share.

import type { ComponentChildren } from 'preact';
import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useParam, useParams } from '../lib/params';
import { useResource, type Resource } from '../lib/resource';
import { Link } from '../lib/router';
import { useI18n, type ConsoleKey } from './i18n';

export const userAt = (id: string) => `/console/users/${encodeURIComponent(id)}`;
export const teamAt = (name: string) => `/console/teams/${encodeURIComponent(name)}`;

export function UserLink({ id }: { id: string }) {
  return <Link href={userAt(id)}>{id}</Link>;
}

export function LevelLink({ level }: { level: { kind: string; name: string } }) {
  return level.kind === 'Team' ? <Link href={teamAt(level.name)}>{level.name}</Link> : <UserLink id={level.name} />;
}

/** The same view of a page with other parameters. */
export function Tabs({ names, current, of }: { names: readonly string[]; current: string; of: 'tab' }) {
  const { t } = useI18n();
  const { path } = useParams();
  return (
    <nav class="tabs" aria-label={t('parts')}>
      {names.map((name, i) => (
        <Link key={name} href={`${path.value}${i > 0 ? `?${of}=${name}` : ''}`} current={name === current}>
          {t(`tab.${name}` as ConsoleKey)}
        </Link>
      ))}
    </nav>
  );
}

/** A parameter of the view that the service filters by, as a text. */
export function Asked({ name, title }: { name: string; title: string }) {
  const [value, set] = useParam(name);
  return (
    <label class="asked">
      <span>{title}</span>
      <input
        type="text" value={value} data-filter={name} spellcheck={false} autocomplete="off"
        onChange={(event) => set(event.currentTarget.value.trim())}
      />
    </label>
  );
}

/** The same of a few values, the first of which is none. */
export function Choice({ name, title, options, absent = '' }: {
  name: string; title: string; options: readonly (readonly [value: string, shown: string])[]; absent?: string;
}) {
  const [value, set] = useParam(name, absent);
  return (
    <label class="asked">
      <span>{title}</span>
      <select value={value} onChange={(event) => set(event.currentTarget.value)}>
        {options.map(([option, shown]) => <option key={option} value={option}>{shown}</option>)}
      </select>
    </label>
  );
}

export function usePlans(): Resource<{ plans: Schemas['OfferedPlan'][] }> {
  const api = useApi();
  return useResource('plans', (signal) => take(api.client.GET('/api/v1/plans', { signal })));
}

/** The currencies that plans are sold in, that of the default plan first. */
export function currenciesOf(plans: readonly Schemas['OfferedPlan'][]): string[] {
  return [...new Set([...plans].sort((a, b) => Number(b.default) - Number(a.default)).map((plan) => plan.currency))];
}

/** Which of several currencies is shown, which are never added up; the first unless the view says another. */
export function Currencies({ of }: { of: readonly string[] }) {
  const { t } = useI18n();
  const [asked] = useParam('currency');
  const all = [...new Set([...of, ...(asked ? [asked] : [])])];
  if (all.length < 2) return null;
  return <Choice name="currency" title={t('currency')} absent={of[0] ?? ''} options={all.map((c) => [c, c] as const)} />;
}

/** A text of any length, which breaks where others do not. */
export function Long({ children }: { children: ComponentChildren }) {
  return <span class="long">{children}</span>;
}

/** Money with the name of its currency: $ is that of several, and an operator has all of them on one page. */
export function Amount({ value, currency }: { value: number; currency: string }) {
  const { number } = useI18n();
  return (
    <span class={value < 0 ? 'bad' : undefined}>
      {number(value, {
        style: 'currency', currency, currencyDisplay: 'code', minimumFractionDigits: 2, maximumFractionDigits: Math.abs(value) < 1 ? 6 : 2,
      })}
    </span>
  );
}

export function Bar({ children }: { children: ComponentChildren }) {
  return <div class="asks">{children}</div>;
}

/** What is used of a limit, in both numbers and as a bar. */
export function Of({ used, limit }: { used: number; limit: number | undefined }) {
  const { number } = useI18n();
  const shown = (n: number) => number(n, { maximumFractionDigits: 3 });
  const share = limit ? Math.min(1, used / limit) : 0;
  return (
    <span class="of">
      {shown(used)}{limit !== undefined && <> / {shown(limit)}</>}
      {limit !== undefined && <meter aria-hidden="true" min={0} max={1} high={0.8} value={share} />}
    </span>
  );
}

/** The days that the view asks for, as the service takes them, and a key of them. */
export function useSpan(): [{ from?: string; to?: string }, string] {
  const [from] = useParam('from');
  const [to] = useParam('to');
  return [{ ...(from ? { from } : {}), ...(to ? { to } : {}) }, `${from}/${to}`];
}

/** A parameter that is a day of UTC, written as the service takes it. */
export function Day({ name, title }: { name: string; title: string }) {
  const [value, set] = useParam(name);
  return (
    <label class="asked">
      <span>{title}</span>
      <input
        type="text" value={value} placeholder="2026-03-31" pattern="[0-9]{4}-[0-9]{2}-[0-9]{2}" maxLength={10} autocomplete="off"
        onChange={(event) => {
          if (event.currentTarget.reportValidity()) set(event.currentTarget.value);
        }}
      />
    </label>
  );
}

export function Span() {
  const { t } = useI18n();
  return (
    <>
      <Day name="from" title={t('from')} />
      <Day name="to" title={t('to')} />
    </>
  );
}
