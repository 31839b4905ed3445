// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What all users come to: who uses most, who comes back, what became of work, and what is to be expected.

import { useEffect, useState } from 'preact/hooks';
import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Figure, Trouble } from '../../lib/parts';
import { useResource } from '../../lib/resource';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Amount, Asked, Bar, Choice, Currencies, currenciesOf, Span, UserLink, usePlans, useSpan } from '../parts';

const orders = ['credits', 'price', 'cost', 'growth'] as const;

export function Spenders() {
  const { t } = useI18n();
  const plans = usePlans();
  const [asked] = useParam('currency');
  const sold = currenciesOf(plans.data?.plans ?? []);
  const [found, setFound] = useState<readonly string[]>([]);
  // Where there are several the service has to be told which. Without plans there is nothing to say, and it knows whether that will do.
  const currency = asked || (sold[0] ?? '');
  const known = asked !== '' || plans.data !== undefined || plans.error !== undefined;
  return (
    <section class="card">
      <h2>{t('tab.spenders')}</h2>
      <Bar>
        <Asked name="month" title={t('monthUTC')} />
        <Choice name="order" title={t('most')} absent="credits" options={orders.map((o) => [o, t(`order.${o}`)] as const)} />
        <Currencies of={[...sold, ...found]} />
      </Bar>
      {known ? <SpendersIn currency={currency} found={setFound} /> : <p class="minor">{t('loading')}</p>}
    </section>
  );
}

/** `found` is told which currencies there are in the month, also those that no plan is sold in. */
function SpendersIn({ currency, found }: { currency: string; found(currencies: readonly string[]): void }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [month] = useParam('month');
  const [asked] = useParam('order', 'credits');
  const by = orders.find((o) => o === asked) ?? 'credits';
  const list = useList(`spenders/${month}/${currency}/${by}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/analytics/spenders', {
      params: { query: { by, limit: 25, ...(month ? { month } : {}), ...(currency ? { currency } : {}), ...cursor } }, signal,
    })) as Promise<Schemas['Spenders']>);
  const first = list.pages?.[0];
  useEffect(() => {
    if (first) found(first.currencies);
  }, [first]);
  const money = (value: number) => (first?.currency ? <Amount value={value} currency={first.currency} /> : i18n.number(value));
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <>
      {first && <p class="minor">{t('spendersWhat', { month: first.month })}</p>}
      <Table<Schemas['Spender']>
        caption={t('tab.spenders')} file="spenders" rows={list.pages?.flatMap((page) => page.users)} rowKey={(s) => s.user_id} more={list.more}
        columns={[
          { key: 'user', title: t('user'), heads: true, value: (s) => s.user_id, show: (s) => <UserLink id={s.user_id} /> },
          { key: 'plan', title: t('plan'), value: (s) => s.plan },
          { key: 'uses', title: t('uses'), end: true, value: (s) => s.uses, show: (s) => i18n.number(s.uses) },
          { key: 'credits', title: t('credits'), end: true, value: (s) => s.credits, show: (s) => i18n.credits(s.credits) },
          { key: 'before', title: t('monthBefore'), end: true, value: (s) => s.previous_credits, show: (s) => i18n.credits(s.previous_credits) },
          { key: 'growth', title: t('order.growth'), end: true, value: (s) => s.growth_credits, show: (s) => i18n.number(s.growth_credits, { maximumFractionDigits: 3, signDisplay: 'exceptZero' }) },
          { key: 'price', title: t('overage'), end: true, value: (s) => s.price, show: (s) => money(s.price) },
          { key: 'cost', title: t('cost'), end: true, value: (s) => s.provider_cost, show: (s) => money(s.provider_cost) },
        ]}
      />
    </>
  );
}

export function Cohorts() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const { data, error, reload } = useResource('cohorts', (signal) =>
    take(api.client.GET('/api/v1/analytics/cohorts', { signal })) as Promise<Schemas['Cohorts']>);
  const months = Math.max(0, ...(data?.cohorts ?? []).map((c) => c.active.length));
  return (
    <section class="card">
      <h2>{t('tab.cohorts')}</h2>
      <p class="minor">{t('cohortsWhat')}</p>
      {error
        ? <Trouble error={error} again={reload} />
        : (
          <Table<Schemas['Cohort']>
            caption={t('tab.cohorts')} file="cohorts" filter="none" rows={data?.cohorts} rowKey={(c) => c.month} sort="-month"
            columns={[
              { key: 'month', title: t('monthUTC'), heads: true, value: (c) => c.month },
              { key: 'users', title: t('users'), end: true, value: (c) => c.users, show: (c) => i18n.number(c.users) },
              ...Array.from({ length: Math.max(0, months - 1) }, (_, i) => ({
                key: `m${i + 1}`, title: `+${i + 1}`, end: true, value: (c: Schemas['Cohort']) => c.active[i + 1],
                show: (c: Schemas['Cohort']) => (c.active[i + 1] === undefined || c.users === 0 ? '' : i18n.percent(c.active[i + 1]! / c.users)),
              })),
            ]}
          />
        )}
    </section>
  );
}

const groups = ['day', 'week', 'month', 'plan', 'type'] as const;

export function Work() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [span, spanKey] = useSpan();
  const [asked] = useParam('by', 'day');
  const by = groups.find((g) => g === asked) ?? 'day';
  const { data, error, reload } = useResource(`work/${by}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/work', { params: { query: { by, ...span } }, signal })) as Promise<Schemas['WorkDone']>);
  const name = (g: Schemas['WorkGroup']) => (by === 'plan' ? (g.plan || '–') : by === 'type' ? (g.usage_type ?? '–') : g.from);
  const seconds = (value: number | undefined) => (value === undefined ? '–' : i18n.number(value, { maximumFractionDigits: 1 }));
  return (
    <section class="card">
      <h2>{t('tab.done')}</h2>
      <Bar>
        <Span />
        <Choice
          name="by" title={t('perWhat')} absent="day"
          options={groups.map((g) => [g, g === 'plan' ? t('plan') : g === 'type' ? t('type') : t(`step.${g}`)] as const)}
        />
      </Bar>
      <p class="minor">{t('doneWhat')}</p>
      {error
        ? <Trouble error={error} again={reload} />
        : (
          <Table<Schemas['WorkGroup']>
            caption={t('tab.done')} file={`work-${by}`} filter="none" rows={data?.groups} rowKey={(g) => `${name(g)}/${g.from}`} sort="-of"
            columns={[
              { key: 'of', title: by === 'plan' ? t('plan') : by === 'type' ? t('type') : t('start'), heads: true, value: name, show: (g) => (by === 'plan' || by === 'type' ? name(g) : i18n.day(g.from)) },
              { key: 'ended', title: t('endings'), end: true, value: (g) => g.endings.ended, show: (g) => i18n.number(g.endings.ended) },
              { key: 'charged', title: t('charged'), end: true, value: (g) => g.endings.charged, show: (g) => i18n.number(g.endings.charged) },
              { key: 'released', title: t('state.Released'), end: true, value: (g) => g.endings.released, show: (g) => i18n.number(g.endings.released) },
              { key: 'expired', title: t('state.Expired'), end: true, value: (g) => g.endings.expired, show: (g) => i18n.number(g.endings.expired) },
              { key: 'cancelled', title: t('state.Cancelled'), end: true, value: (g) => g.endings.cancelled, show: (g) => i18n.number(g.endings.cancelled) },
              { key: 'failed', title: t('failedPercent'), end: true, value: (g) => g.endings.failed_percent, show: (g) => (g.endings.failed_percent === undefined ? '–' : i18n.percent(g.endings.failed_percent / 100)) },
              { key: 'wait', title: t('meanWait'), end: true, value: (g) => g.endings.mean_wait_seconds, show: (g) => seconds(g.endings.mean_wait_seconds) },
              { key: 'run', title: t('meanRun'), end: true, value: (g) => g.endings.mean_run_seconds, show: (g) => seconds(g.endings.mean_run_seconds) },
            ]}
          />
        )}
    </section>
  );
}

export function Forecast() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [plan] = useParam('plan');
  const { data, error, reload } = useResource(`forecast/${plan}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/forecast', { params: { query: plan ? { plan } : {} }, signal })));
  return (
    <section class="card">
      <h2>{t('tab.forecast')}</h2>
      <Bar><Asked name="plan" title={t('plan')} /></Bar>
      {error && <Trouble error={error} again={reload} />}
      {data && <p class="minor">{data.used ? t('forecastWhat', { until: i18n.day(data.until) }) : t('forecastNone', { why: i18n.code('unforeseen', data.reason ?? '') })}</p>}
      {data?.used && (
        <dl class="figures">
          <Figure name={t('expected')}>{i18n.credits(data.used.expected)}</Figure>
          <Figure name={t('low')}>{i18n.credits(data.used.low)}</Figure>
          <Figure name={t('high')}>{i18n.credits(data.used.high)}</Figure>
        </dl>
      )}
      {!error && (
        <Table<Schemas['DayOfUse']>
          caption={t('forecastDays')} file="forecast-days" filter="none" rows={data?.days} rowKey={(d) => d.date} sort="-date"
          columns={[
            { key: 'date', title: t('step.day'), heads: true, value: (d) => d.date, show: (d) => i18n.day(d.date) },
            { key: 'credits', title: t('credits'), end: true, value: (d) => d.credits, show: (d) => i18n.credits(d.credits) },
          ]}
        />
      )}
    </section>
  );
}
