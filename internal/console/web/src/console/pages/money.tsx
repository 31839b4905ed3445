// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What comes in and what it costs: by plan, by team, and over time.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Plot } from '../../lib/plot';
import { useResource } from '../../lib/resource';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { Amount, Bar, Choice, Currencies, currenciesOf, Span, Tabs, teamAt, usePlans, useSpan } from '../parts';
import { Cohorts, Forecast, Spenders, Work } from './analytics';

type Margin = Schemas['Margin'];
const steps = ['day', 'week', 'month'] as const;

const tabs = ['margins', 'spenders', 'cohorts', 'done', 'forecast'];

export function Money() {
  const { t } = useI18n();
  const [asked] = useParam('tab', 'margins');
  const tab = tabs.includes(asked) ? asked : 'margins';
  return (
    <>
      <header><h1>{t('money')}</h1></header>
      <div class="stack">
        <Tabs names={tabs} current={tab} of="tab" />
        {tab === 'margins' && <Margins />}
        {tab === 'spenders' && <Spenders />}
        {tab === 'cohorts' && <Cohorts />}
        {tab === 'done' && <Work />}
        {tab === 'forecast' && <Forecast />}
      </div>
    </>
  );
}

function Margins() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [span, spanKey] = useSpan();
  const [asked] = useParam('by', 'plan');
  const by = asked === 'team' ? 'team' : 'plan';
  const margins = useResource(`margins/${by}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/margins', { params: { query: { by, ...span } }, signal })) as Promise<Schemas['Margins']>);
  return (
    <>
      <Bar><Span /></Bar>
      <div class="stack">
        <section class="card">
          <h2>{t('margins')}</h2>
          <Bar><Choice name="by" title={t('perWhat')} absent="plan" options={[['plan', t('plan')], ['team', t('team')]]} /></Bar>
          <p class="minor">{t('marginsWhat')}</p>
          {margins.error && <Trouble error={margins.error} again={margins.reload} />}
          {!margins.error && (
            <Table<Margin>
              caption={t('margins')} file={`margins-${by}`} prefix="m" filter="none" sort="-revenue"
              rows={margins.data?.groups} rowKey={(m) => `${m.plan ?? m.team ?? ''}/${m.currency}`}
              columns={[
                by === 'team'
                  ? { key: 'of', title: t('team'), heads: true, value: (m) => m.team, show: (m) => (m.team ? <Link href={teamAt(m.team)}>{m.team}</Link> : '–') }
                  : { key: 'of', title: t('plan'), heads: true, value: (m) => m.plan },
                { key: 'currency', title: t('currency'), value: (m) => m.currency, taken: true },
                { key: 'periods', title: t('periods'), end: true, value: (m) => m.periods, show: (m) => i18n.number(m.periods) },
                { key: 'base', title: t('periodPrice'), end: true, value: (m) => m.period_price, show: (m) => <Amount value={m.period_price} currency={m.currency} /> },
                { key: 'overage', title: t('overage'), end: true, value: (m) => m.overage_price, show: (m) => <Amount value={m.overage_price} currency={m.currency} /> },
                { key: 'revenue', title: t('revenue'), end: true, value: (m) => m.revenue, show: (m) => <Amount value={m.revenue} currency={m.currency} /> },
                { key: 'cost', title: t('cost'), end: true, value: (m) => m.provider_cost, show: (m) => <Amount value={m.provider_cost} currency={m.currency} /> },
                { key: 'margin', title: t('margin'), end: true, value: (m) => m.margin, show: (m) => <Amount value={m.margin} currency={m.currency} /> },
                { key: 'percent', title: t('marginPercent'), end: true, value: (m) => m.margin_percent, show: (m) => (m.margin_percent === undefined ? '–' : i18n.percent(m.margin_percent / 100)) },
              ]}
            />
          )}
        </section>
        <OverTime />
      </div>
    </>
  );
}

/** Day by day, week by week or month by month: the money of one currency, and what was used. */
function OverTime() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [span, spanKey] = useSpan();
  const [askedStep] = useParam('step', 'week');
  const step = steps.find((s) => s === askedStep) ?? 'week';
  const [asked] = useParam('currency');
  const plans = usePlans();
  const margins = useResource(`over/${step}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/margins', { params: { query: { by: step, ...span } }, signal })) as Promise<Schemas['Margins']>);
  const totals = useResource(`totals/${step}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/totals', { params: { query: { by: step, ...span } }, signal })) as Promise<Schemas['UsageTotals']>);
  const there = [...new Set(margins.data?.groups.map((m) => m.currency))];
  const sold = currenciesOf(plans.data?.plans ?? []).filter((c) => there.includes(c));
  const currencies = [...new Set([...sold, ...there])];
  const currency = asked || (currencies[0] ?? '');
  const rows = plans.loading ? undefined : margins.data?.groups.filter((m) => m.currency === currency);
  const money = (title: 'revenue' | 'cost' | 'margin', value: (m: Margin) => number) => ({
    key: title, title: t(title), end: true, value, show: (m: Margin) => <Amount value={value(m)} currency={m.currency} />,
  });
  return (
    <>
      <section class="card">
        <h2>{t('marginsOver')}</h2>
        <Bar>
          <Choice name="step" title={t('perWhat')} absent="week" options={steps.map((s) => [s, t(`step.${s}`)] as const)} />
          <Currencies of={currencies} />
        </Bar>
        {margins.error && <Trouble error={margins.error} again={margins.reload} />}
        {rows && rows.length > 0 && (
          <Plot
            days label={t('marginsOverOf', { currency })} times={rows.map((m) => Date.parse(m.from) / 1000)}
            series={[
              { name: t('revenue'), colour: '--accent', values: rows.map((m) => m.revenue) },
              { name: t('cost'), colour: '--second', values: rows.map((m) => m.provider_cost) },
              { name: t('margin'), colour: '--ink', values: rows.map((m) => m.margin) },
            ]}
          />
        )}
        {!margins.error && (
          <Table<Margin>
            caption={t('marginsOver')} file={`margins-${step}-${currency}`} prefix="v" filter="none" sort="-from" rows={rows} rowKey={(m) => m.from}
            columns={[
              { key: 'from', title: t('start'), heads: true, value: (m) => m.from, show: (m) => i18n.day(m.from) },
              { key: 'currency', title: t('currency'), value: (m) => m.currency, taken: true },
              { key: 'periods', title: t('periods'), end: true, value: (m) => m.periods, show: (m) => i18n.number(m.periods) },
              money('revenue', (m) => m.revenue), money('cost', (m) => m.provider_cost), money('margin', (m) => m.margin),
              { key: 'percent', title: t('marginPercent'), end: true, value: (m) => m.margin_percent, show: (m) => (m.margin_percent === undefined ? '–' : i18n.percent(m.margin_percent / 100)) },
            ]}
          />
        )}
      </section>
      <section class="card">
        <h2>{t('usedOver')}</h2>
        <p class="minor">{t('usedOverWhat')}</p>
        {totals.error && <Trouble error={totals.error} again={totals.reload} />}
        {!totals.error && (
          <Table<Schemas['TotalsGroup']>
            caption={t('usedOver')} file={`used-${step}`} prefix="o" filter="none" sort="-from" rows={totals.data?.groups} rowKey={(o) => o.from}
            columns={[
              { key: 'from', title: t('start'), heads: true, value: (o) => o.from, show: (o) => i18n.day(o.from) },
              { key: 'events', title: t('uses'), end: true, value: (o) => o.figures.events, show: (o) => i18n.number(o.figures.events) },
              { key: 'credits', title: t('credits'), end: true, value: (o) => o.figures.credits, show: (o) => i18n.credits(o.figures.credits) },
            ]}
          />
        )}
      </section>
    </>
  );
}
