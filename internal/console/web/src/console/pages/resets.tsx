// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Whose period has ended and is not closed yet, whose ends next, and what the resets did.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Link } from '../../lib/router';
import { Table, type Column } from '../../lib/table';
import { Act } from '../act';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Asked, Bar, LevelLink, Long, teamAt } from '../parts';

type Reset = Schemas['Reset'];

export function Resets() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [user] = useParam('user');
  const [team] = useParam('team');
  const [plan] = useParam('plan');
  const of = { ...(user ? { user_id: user } : {}), ...(team ? { team } : {}), ...(plan ? { plan } : {}) };
  const key = JSON.stringify(of);
  const resets = (state: 'due' | 'coming') => useList(`resets/${state}/${key}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/resets', { params: { query: { state, limit: 50, ...of, ...cursor } }, signal })));
  const due = resets('due');
  const coming = resets('coming');
  const runs = useList(`runs/${plan}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/reset-runs', { params: { query: { limit: 20, ...(plan ? { plan } : {}), ...cursor } }, signal })));
  const asOf = due.pages?.[0]?.as_of;
  const columns: readonly Column<Reset>[] = [
    { key: 'of', title: t('account'), heads: true, value: (r) => `${r.level.kind} ${r.level.name}`, show: (r) => <LevelLink level={r.level} /> },
    { key: 'plan', title: t('plan'), value: (r) => r.plan },
    { key: 'team', title: t('team'), value: (r) => r.team, show: (r) => r.team && <Link href={teamAt(r.team)}>{r.team}</Link> },
    { key: 'period', title: t('period'), end: true, value: (r) => r.period },
    { key: 'used', title: t('used'), end: true, value: (r) => r.used_credits, show: (r) => i18n.credits(r.used_credits) },
    { key: 'end', title: t('endsAt'), value: (r) => r.period_end, show: (r) => i18n.dateTime(r.period_end) },
  ];
  return (
    <>
      <header><h1>{t('resets')}</h1></header>
      <Bar>
        <Asked name="user" title={t('user')} />
        <Asked name="team" title={t('team')} />
        <Asked name="plan" title={t('plan')} />
      </Bar>
      <div class="stack">
        <section class="card">
          <h2>{t('due')}</h2>
          <p class="minor">{t('dueWhat')}{asOf && <> · {t('asOf', { time: i18n.dateTime(asOf) })}</>}</p>
          {due.error
            ? <Trouble error={due.error} again={due.reload} />
            : (
              <Table<Reset>
                caption={t('due')} file="due" prefix="d" rows={due.pages?.flatMap((page) => page.resets)} rowKey={(r) => `${r.level.kind}/${r.level.name}`}
                more={due.more} empty={t('dueNone')}
                columns={[
                  ...columns.slice(0, -1), { ...columns.at(-1)!, title: t('ended') },
                  { key: 'for', title: t('overdueFor'), end: true, value: (r) => (asOf ? Date.parse(asOf) - Date.parse(r.period_end) : 0), show: (r) => asOf && i18n.duration(Date.parse(asOf) - Date.parse(r.period_end)) },
                  {
                    key: 'act', title: t('act'), value: () => '',
                    show: (r) => r.level.kind === 'User' && (
                      <Act
                        name={t('resetNow')} on={r.level.name} what={t('resetNowWhat', { user: r.level.name })} done={() => { due.reload(); coming.reload(); }}
                        fields={[{ name: 'reason', title: t('why') }]}
                        call={({ reason }) => ({ method: 'POST', path: `/api/v1/users/${encodeURIComponent(r.level.name)}/reset`, body: { reason } })}
                      />
                    ),
                  },
                ]}
              />
            )}
        </section>
        <section class="card">
          <h2>{t('coming')}</h2>
          {coming.error
            ? <Trouble error={coming.error} again={coming.reload} />
            : (
              <Table<Reset>
                caption={t('coming')} file="coming" prefix="c" rows={coming.pages?.flatMap((page) => page.resets)} rowKey={(r) => `${r.level.kind}/${r.level.name}`}
                more={coming.more} columns={columns}
              />
            )}
        </section>
        <section class="card">
          <h2>{t('runs')}</h2>
          {runs.error
            ? <Trouble error={runs.error} again={runs.reload} />
            : (
              <Table<Schemas['ResetRun']>
                stacks caption={t('runs')} file="reset-runs" prefix="r" rows={runs.pages?.flatMap((page) => page.runs)} rowKey={(r) => r.id} more={runs.more}
                columns={[
                  { key: 'at', title: t('started'), value: (r) => r.started_at, show: (r) => i18n.dateTime(r.started_at) },
                  { key: 'plan', title: t('plan'), heads: true, value: (r) => r.plan },
                  { key: 'state', title: t('state'), value: (r) => r.state, show: (r) => <span class={r.state === 'Failed' || r.state === 'Lost' ? 'bad' : undefined}>{i18n.code('run', r.state)}</span> },
                  { key: 'accounts', title: t('accounts'), end: true, value: (r) => r.accounts, show: (r) => i18n.number(r.accounts) },
                  { key: 'periods', title: t('periods'), end: true, value: (r) => r.periods, show: (r) => i18n.number(r.periods) },
                  { key: 'failures', title: t('failures'), end: true, value: (r) => r.failures, show: (r) => <span class={r.failures > 0 ? 'bad' : undefined}>{i18n.number(r.failures)}</span> },
                  { key: 'took', title: t('took'), end: true, value: (r) => Date.parse(r.finished_at ?? r.updated_at) - Date.parse(r.started_at), show: (r) => i18n.duration(Date.parse(r.finished_at ?? r.updated_at) - Date.parse(r.started_at)) },
                  { key: 'by', title: t('by'), value: (r) => r.actor, show: (r) => <Long>{r.actor}</Long> },
                  { key: 'message', title: t('message'), value: (r) => r.message, show: (r) => <Long>{r.message}</Long> },
                ]}
              />
            )}
        </section>
      </div>
    </>
  );
}
