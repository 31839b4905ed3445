// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What comes in and what it costs: by month or day, by plan, and by team.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { useResource } from '../../lib/resource';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { Amount, Bar, Choice, Span, Tabs, teamAt, useSpan } from '../parts';
import { Cohorts, Forecast, Spenders, Work } from './analytics';

type Margin = Schemas['Margin'];
type Over = { key: string; from: string; to: string; credits: number; events: number } & Partial<Schemas['Amount']>;
const steps = ['month', 'week', 'day'] as const;

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
  const [askedStep] = useParam('step', 'month');
  const step = steps.find((s) => s === askedStep) ?? 'month';
  const margins = useResource(`margins/${by}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/margins', { params: { query: { by, ...span } }, signal })) as Promise<Schemas['Margins']>);
  const totals = useResource(`totals/${step}/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/totals', { params: { query: { by: step, ...span } }, signal })) as Promise<Schemas['UsageTotals']>);
  // Currencies are never added up: each has a row.
  const over = totals.data?.groups.flatMap(({ from, to, figures }): Over[] => {
    const row = { from, to, credits: figures.credits, events: figures.events };
    return figures.amounts.length > 0
      ? figures.amounts.map((amount) => ({ key: `${from}/${amount.currency}`, ...row, ...amount }))
      : [{ key: from, ...row }];
  });
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
        <section class="card">
          <h2>{t('usedOver')}</h2>
          <Bar><Choice name="step" title={t('perWhat')} absent="month" options={steps.map((s) => [s, t(`step.${s}`)] as const)} /></Bar>
          <p class="minor">{t('usedOverWhat')}</p>
          {totals.error && <Trouble error={totals.error} again={totals.reload} />}
          {!totals.error && (
            <Table<Over>
              caption={t('usedOver')} file={`money-${step}`} prefix="o" filter="none" sort="-from" rows={over} rowKey={(o) => o.key}
              columns={[
                { key: 'from', title: t('start'), heads: true, value: (o) => o.from, show: (o) => i18n.day(o.from) },
                { key: 'events', title: t('uses'), end: true, value: (o) => o.events, show: (o) => i18n.number(o.events) },
                { key: 'credits', title: t('credits'), end: true, value: (o) => o.credits, show: (o) => i18n.credits(o.credits) },
                { key: 'currency', title: t('currency'), value: (o) => o.currency, taken: true },
                { key: 'price', title: t('overage'), end: true, value: (o) => o.price, show: (o) => (o.currency ? <Amount value={o.price ?? 0} currency={o.currency} /> : '–') },
                { key: 'cost', title: t('cost'), end: true, value: (o) => o.provider_cost, show: (o) => (o.currency ? <Amount value={o.provider_cost ?? 0} currency={o.currency} /> : '–') },
              ]}
            />
          )}
        </section>
      </div>
    </>
  );
}
