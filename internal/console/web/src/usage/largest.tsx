// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The largest jobs of the last 30 days: a user's, or those that a team paid for.

import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from '../lib/i18n';
import { Trouble } from '../lib/parts';
import { Table } from '../lib/table';
import type { UsageKey } from '../i18n';
import { Stale, useFresh } from './fresh';

type Work = Schemas['LargeWork'];

export function Largest({ of, path, clock }: { of: string; path: 'user' | 'team'; clock: number }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  // It is of sums that are made every few minutes: what is charged meanwhile is not worth a call.
  const fresh = useFresh<Schemas['LargestWork']>(
    `largest/${path}/${of}`, String(Math.floor(clock / 3_600_000)),
    (signal) => take(path === 'user'
      ? api.client.GET('/api/v1/analytics/largest', { params: { query: { user_id: of } }, signal })
      : api.client.GET('/api/v1/teams/{name}/largest', { params: { path: { name: of } }, signal })),
  );
  const { data, error } = fresh;
  const price = (work: Work) => work.amounts.filter((amount) => amount.price > 0);
  return (
    <section class="card wide" aria-labelledby="usage-largest" ref={fresh.place}>
      <h2 id="usage-largest">{t('largestJobs')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      <Stale of={fresh} />
      {data && <p class="minor">{data.as_of ? t('largestJobsOf', { asOf: i18n.dateTime(data.as_of) }) : t('notSummedUp')}</p>}
      {!error && !(data && !data.as_of) && (
        <Table<Work>
          caption={t('largestJobs')}
          file={`largest-${of}`}
          prefix="g"
          filter="none"
          rows={data?.work}
          rowKey={(work) => work.event_id}
          empty={t('noLargestJobs')}
          columns={[
            { key: 'what', title: t('what'), heads: true, value: (w) => w.usage_type, show: (w) => [i18n.code('type', w.usage_type), w.job_name].filter(Boolean).join(' · ') },
            ...(path === 'team' ? [{ key: 'user', title: t('member'), value: (w: Work) => w.user_id }] : []),
            { key: 'at', title: t('when'), value: (w) => w.occurred_at, show: (w) => i18n.dateTime(w.occurred_at) },
            { key: 'length', title: t('length'), end: true, value: (w) => w.audio_seconds, show: (w) => (w.audio_seconds ? i18n.duration(w.audio_seconds * 1000) : '') },
            { key: 'credits', title: t('credits'), end: true, value: (w) => w.credits, show: (w) => i18n.credits(w.credits) },
            { key: 'price', title: t('price'), end: true, value: (w) => price(w)[0]?.price ?? 0,
              show: (w) => price(w).map((amount) => i18n.money(amount.price, amount.currency)).join(', ') || '–' },
            { key: 'currency', title: t('currency'), taken: true, value: (w) => price(w)[0]?.currency },
            { key: 'name', title: t('name'), taken: true, value: (w) => w.job_name },
            { key: 'id', title: 'ID', taken: true, value: (w) => w.event_id },
          ]}
        />
      )}
    </section>
  );
}
