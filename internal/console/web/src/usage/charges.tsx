// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What each transcription, and each other use, cost.

import { useState } from 'preact/hooks';
import { all, take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from '../lib/i18n';
import { useParam } from '../lib/params';
import { Trouble } from '../lib/parts';
import { Table } from '../lib/table';
import type { UsageKey } from '../i18n';
import { Stale, useFresh } from './fresh';
import type { Standing } from './use-usage';

type Event = Schemas['UsageEvent'];

const PAGE = 100;

export function Charges({ now }: { now: Standing }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const user = now.user_id;
  const [period, setPeriod] = useParam('period');
  const [pages, setPages] = useState(1);
  const read = (signal: AbortSignal | undefined, most: number) =>
    all((cursor) => take(api.client.GET('/api/v1/usage/events', {
      params: { query: { user_id: user, limit: PAGE, ...(period ? { period: Number(period) } : {}), ...(cursor ? { cursor } : {}) } },
      ...(signal ? { signal } : {}),
    })), most);
  const fresh = useFresh(
    `events/${user}/${period}/${pages}`, period ? period : `${now.used_credits}/${now.period_start}`, (signal) => read(signal, pages),
  );
  const { data, error } = fresh;
  const number = data?.pages[0]?.period;
  const rows = data?.pages.flatMap((page) => page.events);
  const go = (to: number) => {
    setPages(1);
    setPeriod(String(to));
  };
  return (
    <section class="card wide" aria-labelledby="usage-charges" ref={fresh.place}>
      <h2 id="usage-charges">{t('charges')}</h2>
      <p class="periods">
        <button type="button" class="quiet" disabled={!number} onClick={() => go(number! - 1)}>{t('earlierPeriod')}</button>
        <span>{number === undefined ? '' : period ? t('period', { number: number + 1 }) : t('thisPeriod')}</span>
        {period && (
          <button type="button" class="quiet" onClick={() => { setPages(1); setPeriod(''); }}>{t('thisPeriod')}</button>
        )}
      </p>
      {error && <Trouble error={error} again={fresh.reload} />}
      <Stale of={fresh} />
      {!error && (
        <Table<Event>
          caption={t('charges')}
          file={`usage-${user}-${number ?? 0}`}
          rows={rows}
          rowKey={(event) => event.id}
          more={data?.more ? () => setPages(pages + 1) : undefined}
          everything={async () => (await read(undefined, Infinity)).pages.flatMap((page) => page.events)}
          empty={t('noCharges')}
          columns={[
            { key: 'at', title: t('when'), heads: true, value: (e) => e.occurred_at, show: (e) => i18n.dateTime(e.occurred_at) },
            { key: 'what', title: t('what'), value: (e) => e.usage_type, show: (e) => what(e, i18n) },
            { key: 'length', title: t('length'), end: true, value: (e) => e.duration_seconds,
              show: (e) => (e.duration_seconds === undefined ? '' : i18n.duration(e.duration_seconds * 1000)) },
            { key: 'credits', title: t('credits'), end: true, value: signed, show: (e) => i18n.credits(signed(e)) },
            { key: 'price', title: t('price'), end: true, value: (e) => e.price ?? 0,
              show: (e) => (e.price ? i18n.money(e.price, e.currency) : '–') },
            { key: 'currency', title: t('currency'), taken: true, value: (e) => e.currency },
            { key: 'bytes', title: t('size'), taken: true, value: (e) => e.file_size_bytes },
            { key: 'kind', title: t('kind'), taken: true, value: (e) => e.kind },
            { key: 'name', title: t('name'), taken: true, value: nameOf },
            { key: 'id', title: 'ID', taken: true, value: (e) => e.id },
          ]}
        />
      )}
    </section>
  );
}

/** What a reversal gives back is below zero, whichever sign the service writes it with. */
const signed = (event: Event) => (event.kind === 'reversal' ? -Math.abs(event.credits) : event.credits);

/** What the recorder of the use called it, if it did. */
const nameOf = ({ metadata }: Event) => metadata?.name ?? metadata?.file ?? metadata?.title;

function what(event: Event, i18n: ReturnType<typeof useI18n<UsageKey>>): string {
  const parts = [i18n.code('type', event.usage_type)];
  const name = nameOf(event);
  if (name) parts.push(name);
  if (event.kind !== 'charge') parts.push(i18n.code('kind', event.kind));
  if (event.reversed_by) parts.push(i18n.t('reversed'));
  if (event.late) parts.push(i18n.t('late'));
  return parts.join(' · ');
}
