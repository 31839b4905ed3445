// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What would be better for a user, with the arithmetic, and how much speaks for the user's leaving.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { Figure, Trouble } from '../../lib/parts';
import { useResource } from '../../lib/resource';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { Amount } from '../parts';

type Item = Schemas['AdviceItem'];
type Factor = Schemas['ChurnFactor'];

export function Advice({ id }: { id: string }) {
  const { t } = useI18n();
  const api = useApi();
  const advice = useResource(`advice/${id}`, (signal) =>
    take(api.client.GET('/api/v1/usage/advice', { params: { query: { user_id: id } }, signal })));
  const items = advice.data?.advice;
  return (
    <>
      <section class="card">
        <h2>{t('advice')}</h2>
        {advice.error && <Trouble error={advice.error} again={advice.reload} />}
        {advice.loading && !items && <p class="minor">{t('loading')}</p>}
        {items?.length === 0 && <p class="minor">{t('adviceNone')}</p>}
        {items?.map((item, i) => <One key={`${item.reason}/${item.grant?.name ?? item.plan?.name ?? ''}`} of={item} file={`advice-${id}-${i}`} />)}
      </section>
      <Score id={id} />
    </>
  );
}

function One({ of, file }: { of: Item; file: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const money = (value: number | undefined) => (value === undefined || !of.currency ? '–' : <Amount value={value} currency={of.currency} />);
  const hour = (h: number) => `${String(h).padStart(2, '0')}:00`;
  const share = (part: number, whole: number) => t('shareOf', { part, whole });
  const { grant } = of;
  return (
    <article class="advice" data-advice={of.reason}>
      <h3>{i18n.code('advice', of.reason)} <code>{of.reason}</code></h3>
      {of.plan && (
        <p>
          {t('advicePlan', { plan: of.plan.display_name || of.plan.name })} <strong>{money(of.saving)}</strong>
        </p>
      )}
      {of.periods && (
        <Table<Schemas['AdvicePeriod']>
          caption={i18n.code('advice', of.reason)} file={file} prefix={`a${of.reason}`} filter="none" rows={of.periods} rowKey={(p) => String(p.period)}
          columns={[
            { key: 'period', title: t('period'), heads: true, end: true, value: (p) => p.period },
            { key: 'used', title: t('used'), end: true, value: (p) => p.used_credits, show: (p) => i18n.credits(p.used_credits) },
            { key: 'plan', title: t('planHadToPay'), end: true, value: (p) => p.plan_credits, show: (p) => i18n.credits(p.plan_credits) },
            { key: 'now', title: t('billNow'), end: true, value: (p) => p.now, show: (p) => money(p.now) },
            { key: 'then', title: t('billThen'), end: true, value: (p) => p.then, show: (p) => money(p.then) },
            { key: 'saved', title: t('saved'), end: true, value: (p) => p.now - p.then, show: (p) => money(p.now - p.then) },
          ]}
        />
      )}
      {of.hours && (
        <Table<Schemas['AdviceHour']>
          caption={i18n.code('advice', of.reason)} file={file} prefix={`a${of.reason}`} filter="none" rows={of.hours} rowKey={(h) => String(h.hour)}
          columns={[
            { key: 'hour', title: t('hour'), heads: true, value: (h) => h.hour, show: (h) => hour(h.hour) },
            { key: 'own', title: t('ownWaited'), end: true, value: (h) => h.own_waited, show: (h) => share(h.own_waited, h.own_admissions) },
            { key: 'all', title: t('allWaited'), end: true, value: (h) => h.waited, show: (h) => share(h.waited, h.admissions) },
            { key: 'better', title: t('betterHour'), end: true, value: (h) => h.better_hour, show: (h) => hour(h.better_hour) },
            { key: 'then', title: t('waitedThen'), end: true, value: (h) => h.better_waited, show: (h) => share(h.better_waited, h.better_admissions) },
          ]}
        />
      )}
      {grant && (
        <p>
          {t('adviceGrant', {
            grant: grant.name, ends: i18n.dateTime(grant.expires_at), remaining: i18n.credits(grant.remaining_credits), recent: i18n.credits(grant.recent_credits),
            days: grant.days_left, unused: i18n.credits(grant.unused_credits),
          })}
        </p>
      )}
    </article>
  );
}

function Score({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const { data, error, reload } = useResource(`churn/${id}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/churn', { params: { query: { user_id: id } }, signal })));
  // Credits of a factor are in their smallest unit, others are days, refusals and admissions.
  const figure = (f: Factor, value: number) => (f.factor === 'trend' ? i18n.credits(value / 60_000) : i18n.number(value));
  return (
    <section class="card">
      <h2>{t('score')}</h2>
      <p class="minor">{t('scoreWhat')}{data?.as_of && <> · {t('asOf', { time: i18n.dateTime(data.as_of) })}</>}</p>
      {error && <Trouble error={error} again={reload} />}
      {!data && !error && <p class="minor">{t('loading')}</p>}
      {data && data.score === undefined && <p data-score>{t('scoreNone')}</p>}
      {data && data.score !== undefined && (
        <>
          <dl class="figures" data-score>
            <Figure name={t('scoreOf')} note={data.at_risk && <strong class="bad">{t('atRisk')}</strong>}>{i18n.number(data.score)}</Figure>
          </dl>
          <Table<Factor>
            caption={t('factors')} file={`score-${id}`} prefix="f" filter="none" rows={data.factors ?? []} rowKey={(f) => f.factor}
            columns={[
              { key: 'factor', title: t('factor'), heads: true, value: (f) => f.factor, show: (f) => i18n.code('factor', f.factor) },
              { key: 'points', title: t('points'), end: true, value: (f) => f.points, show: (f) => `${i18n.number(f.points)} / ${i18n.number(f.max_points)}` },
              { key: 'value', title: t('found'), end: true, value: (f) => f.value, show: (f) => figure(f, f.value) },
              { key: 'usual', title: t('usual'), end: true, value: (f) => f.usual, show: (f) => (f.factor === 'refusals' ? '–' : figure(f, f.usual)) },
            ]}
          />
        </>
      )}
    </section>
  );
}
