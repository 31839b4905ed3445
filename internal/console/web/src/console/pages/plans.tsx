// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What is sold, and how much of it is used.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { useResource, type Resource } from '../../lib/resource';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { Amount, Bar, Span, Tabs, usePlans, useSpan } from '../parts';
import { WhatIf } from './what-if';

type Plan = Schemas['OfferedPlan'];

const tabs = ['offered', 'whatif'];

export function Plans() {
  const { t } = useI18n();
  const [asked] = useParam('tab', 'offered');
  const tab = tabs.includes(asked) ? asked : 'offered';
  const plans = usePlans();
  return (
    <>
      <header><h1>{t('plans')}</h1></header>
      <div class="stack">
        <Tabs names={tabs} current={tab} of="tab" />
        {tab === 'offered' && <Offered plans={plans} />}
        {tab === 'whatif' && plans.error && <Trouble error={plans.error} again={plans.reload} />}
        {tab === 'whatif' && plans.data && <WhatIf plans={plans.data.plans} />}
      </div>
    </>
  );
}

function Offered({ plans }: { plans: Resource<{ plans: Plan[] }> }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [span, spanKey] = useSpan();
  const used = useResource(`utilisation/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/utilisation', { params: { query: span }, signal })) as Promise<Schemas['PlanUtilisations']>);
  const refused = useResource(`refusals/${spanKey}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/totals', { params: { query: { by: 'plan', ...span } }, signal })) as Promise<Schemas['UsageTotals']>);
  const unfit = useResource('plans-advice', (signal) => take(api.client.GET('/api/v1/analytics/advice', { signal })));
  const limit = (plan: Plan, name: 'credits' | 'concurrent' | 'queued') =>
    plan.limits.unlimited.includes(name) ? t('unlimited') : plan.limits[name] === undefined ? '–' : i18n.number(plan.limits[name]);
  return (
    <>
        <section class="card">
          <h2>{t('offered')}</h2>
          {plans.error && <Trouble error={plans.error} again={plans.reload} />}
          {!plans.error && (
            <Table<Plan>
              caption={t('offered')} file="plans" prefix="p" filter="none" rows={plans.data?.plans} rowKey={(plan) => plan.name} sort="rank"
              columns={[
                { key: 'rank', title: t('rank'), end: true, value: (plan) => plan.rank },
                { key: 'plan', title: t('plan'), heads: true, value: (plan) => plan.name },
                { key: 'name', title: t('name'), value: (plan) => plan.display_name },
                { key: 'default', title: t('default'), value: (plan) => (plan.default ? 1 : 0), show: (plan) => (plan.default ? t('yes') : '') },
                { key: 'price', title: t('price'), end: true, value: (plan) => plan.price_per_period, show: (plan) => <Amount value={plan.price_per_period} currency={plan.currency} /> },
                { key: 'credits', title: t('credits'), end: true, value: (plan) => plan.limits.credits, show: (plan) => limit(plan, 'credits') },
                { key: 'running', title: t('atOnce'), end: true, value: (plan) => plan.limits.concurrent, show: (plan) => limit(plan, 'concurrent') },
                { key: 'queued', title: t('waiting'), end: true, value: (plan) => plan.limits.queued, show: (plan) => limit(plan, 'queued') },
                { key: 'size', title: t('fileSize'), end: true, value: (plan) => plan.limits.file_size_bytes, show: (plan) => (plan.limits.file_size_bytes === undefined ? t('unlimited') : i18n.bytes(plan.limits.file_size_bytes)) },
                { key: 'overage', title: t('overage'), end: true, value: (plan) => plan.overage?.max_credits, show: (plan) => plan.overage && t('overageOf', { credits: plan.overage.max_credits, price: i18n.money(plan.overage.price_per_credit, plan.currency) }) },
              ]}
            />
          )}
        </section>
        <section class="card">
          <h2>{t('utilisation')}</h2>
          <Bar><Span /></Bar>
          <p class="minor">{t('utilisationWhat')}</p>
          {used.error && <Trouble error={used.error} again={used.reload} />}
          {!used.error && (
            <Table<Schemas['PlanUtilisation']>
              caption={t('utilisation')} file="utilisation" prefix="u" filter="none" rows={used.data?.plans} rowKey={(u) => u.plan} sort="plan"
              columns={[
                { key: 'plan', title: t('plan'), heads: true, value: (u) => u.plan },
                { key: 'periods', title: t('periods'), end: true, value: (u) => u.periods, show: (u) => i18n.number(u.periods) },
                { key: 'idle', title: t('idle'), end: true, value: (u) => u.idle, show: (u) => i18n.number(u.idle) },
                { key: 'median', title: t('median'), end: true, value: (u) => u.deciles?.[4], show: (u) => (u.deciles ? i18n.percent((u.deciles[4] ?? 0) / 100) : '–') },
                { key: 'high', title: t('ninth'), end: true, value: (u) => u.deciles?.[8], show: (u) => (u.deciles ? i18n.percent((u.deciles[8] ?? 0) / 100) : '–') },
                { key: 'exhausted', title: t('exhausted'), end: true, value: (u) => u.exhausted, show: (u) => i18n.number(u.exhausted) },
              ]}
            />
          )}
        </section>
        {unfit.error && <Trouble error={unfit.error} again={unfit.reload} />}
        {unfit.data && unfit.data.plans.length > 0 && (
          <section class="card">
            <h2>{t('fitsNobody')}</h2>
            <p class="minor">{t('fitsNobodyWhat')}</p>
            <Table<Schemas['PlanAdvice']>
              caption={t('fitsNobody')} file="plans-advice" prefix="a" filter="none" rows={unfit.data.plans} rowKey={(a) => a.plan}
              columns={[
                { key: 'plan', title: t('plan'), heads: true, value: (a) => a.plan },
                { key: 'periods', title: t('periods'), end: true, value: (a) => a.periods, show: (a) => i18n.number(a.periods) },
                { key: 'within', title: t('within'), end: true, value: (a) => a.within, show: (a) => i18n.number(a.within) },
              ]}
            />
          </section>
        )}
        <section class="card">
          <h2>{t('refusals')}</h2>
          <p class="minor">{t('refusalsWhat')}</p>
          {refused.error && <Trouble error={refused.error} again={refused.reload} />}
          {!refused.error && (
            <Table<Schemas['RefusalTotal']>
              caption={t('refusals')} file="refusals" rows={refused.data?.refusals} rowKey={(r) => `${r.plan}/${r.reason}/${r.served_by ?? ''}`} sort="-refusals"
              columns={[
                { key: 'plan', title: t('plan'), heads: true, value: (r) => r.plan },
                { key: 'reason', title: t('reason'), value: (r) => r.reason },
                { key: 'served', title: t('servedBy'), value: (r) => r.served_by },
                { key: 'refusals', title: t('refusals'), end: true, value: (r) => r.refusals, show: (r) => i18n.number(r.refusals) },
                { key: 'days', title: t('userDays'), end: true, value: (r) => r.user_days, show: (r) => i18n.number(r.user_days) },
                { key: 'peak', title: t('peakUsers'), end: true, value: (r) => r.peak_users, show: (r) => i18n.number(r.peak_users) },
                { key: 'credits', title: t('credits'), end: true, value: (r) => r.credits, show: (r) => i18n.credits(r.credits) },
              ]}
            />
          )}
        </section>
    </>
  );
}
