// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// One user: why something may not run, what was used, and what an operator can do about it.

import { words } from '../../lib/alert';
import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Figure, Trouble } from '../../lib/parts';
import { useResource } from '../../lib/resource';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { Act } from '../act';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Advice } from './advice';
import { AuditTable } from './audit';
import { Amount, Bar, Choice, LevelLink, Long, Of, Tabs, teamAt, usePlans } from '../parts';

const tabs = ['why', 'work', 'events', 'largest', 'periods', 'alerts', 'advice', 'audit'];

export function User({ id = '' }: Record<string, string>) {
  const { t } = useI18n();
  const api = useApi();
  const [asked] = useParam('tab', 'why');
  const tab = tabs.includes(asked) ? asked : 'why';
  const user = useResource(`user/${id}`, (signal) =>
    take(api.client.GET('/api/v1/users/{id}', { params: { path: { id } }, signal })));
  const plans = usePlans();
  const u = user.data;
  const path = `/api/v1/users/${encodeURIComponent(id)}`;
  const declared = (spec: (values: Record<string, string>) => Record<string, unknown>) => u?.declared_by !== undefined && { by: u.declared_by, spec };
  return (
    <>
      <header>
        <h1>{id}</h1>
        {u && (
          <p class="minor">
            {u.plan}
            {u.team && <> · <Link href={teamAt(u.team)}>{u.team}</Link></>} · {u.time_zone}
            {u.declared_by && <> · {t('declaredBy')} {u.declared_by}</>}
            {u.suspended && <> · <strong class="bad">{t('suspended')}</strong></>}
          </p>
        )}
      </header>
      {user.error && <Trouble error={user.error} again={user.reload} />}
      {u && (
        <div class="stack">
          <div class="acts">
            <Act
              name={t('grant')} what={t('grantWhat', { user: id })} done={user.reload}
              fields={[
                { name: 'name', title: t('grantName'), pattern: '[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?' },
                { name: 'credits', title: t('credits'), type: 'number', step: '1' },
                { name: 'until', title: t('until'), type: 'datetime-local', optional: true },
                { name: 'reason', title: t('why') },
              ]}
              call={({ name, credits, until, reason }) => ({
                method: 'PUT', path: `${path}/grants/${encodeURIComponent(name ?? '')}`,
                body: { credits: Number(credits), ...(until ? { expires_at: new Date(until).toISOString() } : {}), reason },
              })}
              declared={declared(({ name = '', credits, until }) => ({
                grants: { [name]: { credits: Number(credits), ...(until ? { expiresAt: new Date(until).toISOString() } : {}) } },
              }))}
            />
            <Act
              name={t('adjust')} what={t('adjustWhat', { user: id })} done={user.reload}
              fields={[{ name: 'credits', title: t('credits'), type: 'number', step: 'any' }, { name: 'reason', title: t('why') }]}
              call={({ credits, reason }) => ({
                method: 'POST', path: '/api/v1/usage/adjustments', keyed: true,
                body: { user_id: id, credits: Number(credits), reason },
              })}
            />
            <Act
              name={t('changePlan')} what={t('changePlanWhat', { user: id })} done={user.reload}
              fields={[
                { name: 'plan', title: t('plan'), value: u.plan, options: plans.data?.plans.map((plan) => plan.name) ?? [u.plan] },
                { name: 'reason', title: t('why') },
              ]}
              call={({ plan, reason }) => ({ method: 'PATCH', path, body: { plan, reason } })}
              declared={declared(({ plan }) => ({ planRef: { name: plan } }))}
            />
            <Act
              name={u.suspended ? t('resume') : t('suspend')} done={user.reload}
              what={t(u.suspended ? 'resumeWhat' : 'suspendWhat', { user: id })}
              fields={[{ name: 'reason', title: t('why') }]}
              call={({ reason }) => ({ method: 'PATCH', path, body: { suspended: !u.suspended, reason } })}
              declared={declared(() => ({ suspended: !u.suspended }))}
            />
          </div>
          <Tabs names={tabs} current={tab} of="tab" />
          {tab === 'why' && <Why id={id} of={u} />}
          {tab === 'work' && <Work id={id} />}
          {tab === 'events' && <Events id={id} />}
          {tab === 'largest' && <Largest id={id} />}
          {tab === 'periods' && <Periods id={id} />}
          {tab === 'alerts' && <Alerts id={id} />}
          {tab === 'advice' && <Advice id={id} />}
          {tab === 'audit' && <AuditTable of={{ user_id: id }} file={`audit-${id}`} />}
        </div>
      )}
    </>
  );
}

/** Every limit that binds, at each level, and the lots that pay. */
function Why({ id, of }: { id: string; of: Schemas['User'] }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  // Read again after each act: that makes another user of it.
  const { data: now, error, reload } = useResource(`current/${JSON.stringify(of)}`, (signal) =>
    take(api.client.GET('/api/v1/usage/current', { params: { query: { user_id: id } }, signal })));
  if (error) return <Trouble error={error} again={reload} />;
  if (!now) return <p class="minor">{t('loading')}</p>;
  const own: Schemas['LevelStanding'] = {
    level: { kind: 'User', name: id }, pays: !now.payer || now.payer.kind === 'User', suspended: now.suspended,
    used_credits: now.used_credits, reserved_credits: now.reserved_credits, running: now.running, queued: now.queued,
    period_start: now.period_start, resets_at: now.resets_at,
    ...(now.limit_credits === undefined ? {} : { limit_credits: now.limit_credits }),
    ...(now.remaining_credits === undefined ? {} : { remaining_credits: now.remaining_credits }),
    ...(now.limits.concurrent === undefined ? {} : { concurrent_limit: now.limits.concurrent }),
    ...(now.limits.queued === undefined ? {} : { queued_limit: now.limits.queued }),
  };
  const limits = now.limits.set_by?.length ? now.limits.set_by : limitsOf(now.limits, own.level);
  return (
    <>
      <section class="card">
        <dl class="figures">
          <Figure name={t('used')}>{i18n.credits(now.used_credits)}</Figure>
          <Figure name={t('reserved')}>{i18n.credits(now.reserved_credits)}</Figure>
          <Figure name={t('left')}>{now.remaining_credits === undefined ? t('unlimited') : i18n.credits(now.remaining_credits)}</Figure>
          <Figure name={t('running')}>{i18n.number(now.running)}</Figure>
          <Figure name={t('waiting')}>{i18n.number(now.queued)}</Figure>
        </dl>
      </section>
      <section class="card">
        <h2>{t('levels')}</h2>
        <Standings rows={now.levels?.length ? now.levels : [own]} file={`levels-${id}`} />
      </section>
      {limits.length > 0 && (
        <section class="card">
          <h2>{t('strictest')}</h2>
          <Table<Schemas['EffectiveLimit']>
            caption={t('strictest')} file={`limits-${id}`} prefix="l" filter="none" rows={limits} rowKey={(l) => l.limit_name}
            columns={[
              { key: 'limit', title: t('limit'), heads: true, value: (l) => l.limit_name, show: (l) => i18n.code('limit', l.limit_name) },
              { key: 'value', title: t('value'), end: true, value: (l) => l.value, show: (l) => (l.currency ? <Amount value={l.value} currency={l.currency} /> : i18n.number(l.value)) },
              { key: 'unit', title: t('unit'), value: (l) => l.unit, show: (l) => i18n.code('unit', l.unit) },
              { key: 'level', title: t('setBy'), value: (l) => `${l.level.kind} ${l.level.name}`, show: (l) => <LevelLink level={l.level} /> },
            ]}
          />
        </section>
      )}
      {now.lots && now.lots.length > 0 && (
        <section class="card">
          <h2>{t('lots')}</h2>
          <Table<Schemas['Lot']>
            caption={t('lots')} file={`lots-${id}`} prefix="c" filter="none" rows={now.lots} rowKey={(lot) => `${lot.kind}/${lot.name ?? ''}/${lot.ends_at ?? ''}`}
            columns={[
              { key: 'kind', title: t('kind'), heads: true, value: (lot) => lot.kind, show: (lot) => i18n.code('lot', lot.kind) },
              { key: 'name', title: t('name'), value: (lot) => lot.name },
              { key: 'used', title: t('used'), end: true, value: (lot) => lot.used_credits, show: (lot) => <Of used={lot.used_credits} limit={lot.credits} /> },
              { key: 'reserved', title: t('reserved'), end: true, value: (lot) => lot.reserved_credits, show: (lot) => i18n.credits(lot.reserved_credits) },
              { key: 'left', title: t('left'), end: true, value: (lot) => lot.remaining_credits, show: (lot) => (lot.remaining_credits === undefined ? t('unlimited') : i18n.credits(lot.remaining_credits)) },
              { key: 'ends', title: t('endsAt'), value: (lot) => lot.ends_at, show: (lot) => (lot.ends_at ? i18n.dateTime(lot.ends_at) : '–') },
            ]}
          />
        </section>
      )}
    </>
  );
}

/** The limits of who has nobody above: all of them are its own. */
function limitsOf(limits: Schemas['Limits'], level: Schemas['Level']): Schemas['EffectiveLimit'][] {
  const one = (limit_name: Schemas['EffectiveLimit']['limit_name'], unit: Schemas['Unit'], value: number | undefined) =>
    value === undefined ? [] : [{ limit_name, unit, value, level }];
  return [
    ...one('credits', 'credits', limits.credits), ...one('concurrent', 'jobs', limits.concurrent), ...one('queued', 'jobs', limits.queued),
    ...one('file_size', 'bytes', limits.file_size_bytes), ...one('audio_duration', 'seconds', limits.audio_duration_seconds),
  ];
}

/** Where each level of a tree stands against its limits. */
export function Standings({ rows, file }: { rows: readonly Schemas['LevelStanding'][]; file: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  return (
    <Table<Schemas['LevelStanding']>
      caption={t('levels')} file={file} prefix="s" filter="none" rows={rows} rowKey={(s) => `${s.level.kind}/${s.level.name}`}
      columns={[
        { key: 'level', title: t('level'), heads: true, value: (s) => `${s.level.kind} ${s.level.name}`, show: (s) => <LevelLink level={s.level} /> },
        { key: 'pays', title: t('pays'), value: (s) => (s.pays ? 1 : 0), show: (s) => (s.pays ? t('yes') : '') },
        { key: 'used', title: t('used'), end: true, value: (s) => s.used_credits, show: (s) => <Of used={s.used_credits} limit={s.limit_credits} /> },
        { key: 'reserved', title: t('reserved'), end: true, value: (s) => s.reserved_credits, show: (s) => i18n.credits(s.reserved_credits) },
        { key: 'running', title: t('running'), end: true, value: (s) => s.running, show: (s) => <Of used={s.running} limit={s.concurrent_limit} /> },
        { key: 'queued', title: t('waiting'), end: true, value: (s) => s.queued, show: (s) => <Of used={s.queued} limit={s.queued_limit} /> },
        { key: 'resets', title: t('resetsAt'), value: (s) => s.resets_at, show: (s) => i18n.dateTime(s.resets_at) },
      ]}
    />
  );
}

/** So many that wait are told with their place. */
const PLACED = 5;

const whyOf = (a: Schemas['Admission']) => a.binding?.message || a.message || a.release_reason || a.reason;

function Work({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [stuck] = useParam('stuck');
  // What waits is asked for one by one, the first ones of it: a list has neither places nor starts.
  const list = useList(`work/${id}/${stuck}`, async (cursor, signal) => {
    const query = { user_id: id, limit: 50, ...(stuck ? { stuck: true } : {}), ...cursor };
    const page = await take(api.client.GET('/api/v1/admissions', { params: { query }, signal }));
    const first = page.admissions.filter((a) => a.state === 'Queued').slice(-PLACED);
    const placed = await Promise.all(first.map((a) => take(api.client.GET('/api/v1/admissions/{id}', { params: { path: { id: a.id } }, signal }))));
    return { ...page, admissions: page.admissions.map((a) => placed.find((p) => p.id === a.id) ?? a) };
  });
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <>
      <Bar><Choice name="stuck" title={t('stuck')} options={[['', t('any')], ['true', t('yes')]]} /></Bar>
      <Table<Schemas['Admission']>
        stacks caption={t('tab.work')} file={`work-${id}`} rows={list.pages?.flatMap((page) => page.admissions)} rowKey={(a) => a.id} more={list.more}
        columns={[
          { key: 'at', title: t('time'), value: (a) => a.created_at, show: (a) => i18n.dateTime(a.created_at) },
          { key: 'state', title: t('state'), value: (a) => a.state, show: (a) => i18n.code('state', a.state) },
          {
            key: 'act', title: t('act'), value: () => '',
            show: (a) => a.state === 'Admitted' && (
              <Act
                name={t('release')} on={a.id} what={t('releaseWhat', { id: a.id })} done={list.reload} fields={[{ name: 'reason', title: t('why') }]}
                call={({ reason }) => ({ method: 'POST', path: `/api/v1/admissions/${a.id}/force-release`, body: { reason } })}
              />
            ),
          },
          { key: 'why', title: t('why'), value: whyOf, show: (a) => <Long>{whyOf(a)}</Long> },
          { key: 'place', title: t('place'), end: true, value: (a) => a.binding?.position ?? a.position },
          {
            key: 'starts', title: t('startExpected'), value: (a) => a.estimated_start?.earliest,
            show: (a) => a.estimated_start && i18n.range(a.estimated_start.earliest, a.estimated_start.latest),
          },
          { key: 'estimated', title: t('estimated'), end: true, value: (a) => a.estimated_credits, show: (a) => i18n.credits(a.estimated_credits) },
          { key: 'charged', title: t('charged'), end: true, value: (a) => a.charged_credits, show: (a) => (a.charged_credits === undefined ? '' : i18n.credits(a.charged_credits)) },
          { key: 'stuck', title: t('stuck'), value: (a) => a.stuck, show: (a) => a.stuck && i18n.code('stuck', a.stuck) },
          { key: 'id', title: t('id'), value: (a) => a.id, taken: true },
        ]}
      />
    </>
  );
}

function Events({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [period, setPeriod] = useParam('period');
  const list = useList(`events/${id}/${period}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/usage/events', {
      params: { query: { user_id: id, limit: 50, ...(period ? { period: Number(period) } : {}), ...cursor } }, signal,
    })));
  const number = list.pages?.[0]?.period;
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <>
      <div class="asks">
        <button type="button" class="quiet" disabled={!number} onClick={() => setPeriod(String(number! - 1))}>{t('earlier')}</button>
        <span>{number === undefined ? '' : t('periodNo', { n: number })}</span>
        {period && <button type="button" class="quiet" onClick={() => setPeriod('')}>{t('thisPeriod')}</button>}
      </div>
      <Table<Schemas['UsageEvent']>
        stacks caption={t('tab.events')} file={`events-${id}`} rows={list.pages?.flatMap((page) => page.events)} rowKey={(e) => e.id} more={list.more}
        columns={[
          { key: 'at', title: t('time'), value: (e) => e.occurred_at, show: (e) => i18n.dateTime(e.occurred_at) },
          { key: 'kind', title: t('kind'), value: (e) => e.kind, show: (e) => i18n.code('event', e.kind) },
          { key: 'type', title: t('type'), value: (e) => e.usage_type },
          { key: 'credits', title: t('credits'), end: true, value: (e) => e.credits, show: (e) => i18n.credits(e.credits) },
          { key: 'price', title: t('overage'), end: true, value: (e) => e.price, show: (e) => (e.price === undefined ? '' : <Amount value={e.price} currency={e.currency} />) },
          { key: 'cost', title: t('cost'), end: true, value: (e) => e.cost, show: (e) => <Amount value={e.cost} currency={e.cost_currency ?? e.currency} /> },
          { key: 'reason', title: t('why'), value: (e) => e.reason, show: (e) => <Long>{e.reason}</Long> },
          { key: 'by', title: t('by'), value: (e) => e.recorded_by },
          { key: 'id', title: t('id'), value: (e) => e.id, taken: true },
          {
            key: 'act', title: t('act'), value: (e) => (e.reversed_by ? t('reversed') : ''),
            show: (e) => e.reversed_by ? <span class="minor">{t('reversed')}</span> : e.kind !== 'reversal' && (
              <Act
                name={t('reverse')} on={e.id} what={t('reverseWhat', { credits: i18n.credits(e.credits) })} done={list.reload}
                fields={[{ name: 'reason', title: t('why') }]}
                call={({ reason }) => ({ method: 'POST', path: `/api/v1/usage/${e.id}/reverse`, keyed: true, body: { reason } })}
              />
            ),
          },
        ]}
      />
    </>
  );
}

function Largest({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const { data, error, reload } = useResource(`largest/${id}`, (signal) =>
    take(api.client.GET('/api/v1/analytics/largest', { params: { query: { user_id: id } }, signal })));
  if (error) return <Trouble error={error} again={reload} />;
  if (data && !data.as_of) return <p class="minor">{t('notSummedUp')}</p>;
  return (
    <>
      {data?.as_of && <p class="minor">{t('largestWhat', { time: i18n.dateTime(data.as_of) })}</p>}
      <Table<Schemas['LargeWork']>
        stacks caption={t('tab.largest')} file={`largest-${id}`} filter="none" rows={data?.work} rowKey={(w) => w.event_id}
        columns={[
          { key: 'at', title: t('time'), value: (w) => w.occurred_at, show: (w) => i18n.dateTime(w.occurred_at) },
          { key: 'type', title: t('type'), value: (w) => w.usage_type },
          { key: 'job', title: t('job'), value: (w) => (w.job_name ? `${w.job_namespace}/${w.job_name}` : ''), show: (w) => <Long>{w.job_name && `${w.job_namespace}/${w.job_name}`}</Long> },
          { key: 'credits', title: t('credits'), end: true, value: (w) => w.credits, show: (w) => i18n.credits(w.credits) },
          { key: 'price', title: t('overage'), end: true, value: (w) => w.amounts[0]?.price, show: (w) => w.amounts.map((a) => <div key={a.currency}><Amount value={a.price} currency={a.currency} /></div>) },
          { key: 'cost', title: t('cost'), end: true, value: (w) => w.amounts[0]?.provider_cost, show: (w) => w.amounts.map((a) => <div key={a.currency}><Amount value={a.provider_cost} currency={a.currency} /></div>) },
          { key: 'plan', title: t('plan'), value: (w) => w.plan },
          { key: 'event', title: t('id'), value: (w) => w.event_id, taken: true },
        ]}
      />
    </>
  );
}

function Periods({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const list = useList(`periods/${id}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/usage/history', { params: { query: { user_id: id, limit: 24, ...cursor } }, signal })));
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <Table<Schemas['Period']>
      caption={t('tab.periods')} file={`periods-${id}`} rows={list.pages?.flatMap((page) => page.periods)} rowKey={(p) => String(p.number)} more={list.more}
      columns={[
        { key: 'number', title: t('number'), heads: true, end: true, value: (p) => p.number },
        { key: 'start', title: t('start'), value: (p) => p.start, show: (p) => i18n.date(p.start) },
        { key: 'end', title: t('endsAt'), value: (p) => p.end, show: (p) => i18n.date(p.end) },
        { key: 'state', title: t('state'), value: (p) => p.state, show: (p) => i18n.code('period', p.state) },
        { key: 'plan', title: t('plan'), value: (p) => p.plan },
        { key: 'used', title: t('used'), end: true, value: (p) => p.used_credits, show: (p) => <Of used={p.used_credits} limit={p.limit_credits} /> },
        { key: 'carried', title: t('carriedOver'), end: true, value: (p) => p.carry_over_credits, show: (p) => i18n.credits(p.carry_over_credits) },
        { key: 'price', title: t('overage'), end: true, value: (p) => p.price, show: (p) => <Amount value={p.price} currency={p.currency} /> },
        { key: 'cost', title: t('cost'), end: true, value: (p) => p.provider_cost, show: (p) => <Amount value={p.provider_cost} currency={p.currency} /> },
        { key: 'currency', title: t('currency'), value: (p) => p.currency, taken: true },
      ]}
    />
  );
}

function Alerts({ id }: { id: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const list = useList(`alerts/${id}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/usage/alerts', { params: { query: { user_id: id, limit: 50, ...cursor } }, signal })));
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <Table<Schemas['Alert']>
      stacks caption={t('tab.alerts')} file={`alerts-${id}`} rows={list.pages?.flatMap((page) => page.alerts)} rowKey={(a) => a.id} more={list.more}
      columns={[
        { key: 'at', title: t('time'), value: (a) => a.raised_at, show: (a) => i18n.dateTime(a.raised_at) },
        { key: 'severity', title: t('severity'), value: (a) => a.severity, show: (a) => i18n.code('severity', a.severity) },
        { key: 'message', title: t('message'), value: (a) => words(a, i18n), show: (a) => <Long>{words(a, i18n)}</Long> },
        { key: 'over', title: t('over'), value: (a) => a.resolved_at, show: (a) => (a.resolved_at ? i18n.dateTime(a.resolved_at) : '') },
        { key: 'read', title: t('readBy'), value: (a) => a.acknowledged_by },
      ]}
    />
  );
}
