// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Who waits for what, at which level.

import { useEffect } from 'preact/hooks';
import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Asked, Bar, LevelLink, UserLink } from '../parts';

type Waiting = Schemas['QueueEntry'] & { level: Schemas['Level'] };

/** How often it is read again, as long as it is looked at, in milliseconds. */
const AGAIN = 5000;

export function Queue() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [user] = useParam('user');
  const [team] = useParam('team');
  const list = useList(`queue/${user}/${team}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/queue', {
      params: { query: { limit: 100, ...(user ? { user_id: user } : {}), ...(team ? { team } : {}), ...cursor } }, signal,
    })));
  const { pages, reload } = list;
  useEffect(() => {
    // Who has asked for more reads it; the first page changes under nobody's eyes.
    if ((pages?.length ?? 0) > 1) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) reload();
    }, AGAIN);
    return () => clearInterval(timer);
  }, [(pages?.length ?? 0) > 1]);
  const counts = pages?.[0]?.levels.flatMap(({ level, waiting }) => waiting.map((count) => ({ level, ...count })));
  const rows = pages?.flatMap((page) => page.levels.flatMap(({ level, entries }) => entries.map((entry) => ({ ...entry, level }))));
  const asOf = pages?.[0]?.as_of;
  return (
    <>
      <header>
        <h1>{t('queue')}</h1>
        {asOf && <span class="minor">{t('asOf', { time: i18n.time(asOf) })}</span>}
      </header>
      <Bar>
        <Asked name="user" title={t('user')} />
        <Asked name="team" title={t('team')} />
      </Bar>
      {list.error && <Trouble error={list.error} again={list.reload} />}
      {!list.error && (
        <div class="stack">
          <section class="card">
            <h2>{t('byLevel')}</h2>
            <Table
              caption={t('byLevel')} file="queue-levels" prefix="l" filter="none" sort="-count" rows={counts}
              rowKey={(c) => `${c.level.kind}/${c.level.name}/${c.limit_name}`}
              columns={[
                { key: 'level', title: t('level'), heads: true, value: (c) => `${c.level.kind} ${c.level.name}`, show: (c) => <LevelLink level={c.level} /> },
                { key: 'limit', title: t('waitsFor'), value: (c) => c.limit_name, show: (c) => i18n.code('limit', c.limit_name) },
                { key: 'count', title: t('waiting'), end: true, value: (c) => c.count, show: (c) => `${i18n.number(c.count)}${c.more ? '+' : ''}` },
              ]}
            />
          </section>
          <section class="card">
            <h2>{t('waitingWork')}</h2>
            <Table<Waiting>
              caption={t('waitingWork')} file="queue" rows={rows} rowKey={(w) => w.id} more={list.more}
              columns={[
                { key: 'user', title: t('user'), heads: true, value: (w) => w.user_id, show: (w) => <UserLink id={w.user_id} /> },
                { key: 'level', title: t('level'), value: (w) => w.level.name, show: (w) => <LevelLink level={w.level} /> },
                { key: 'limit', title: t('waitsFor'), value: (w) => w.limit_name, show: (w) => i18n.code('limit', w.limit_name) },
                { key: 'reason', title: t('reason'), value: (w) => w.reason },
                { key: 'place', title: t('place'), end: true, value: (w) => w.position },
                { key: 'priority', title: t('priority'), end: true, value: (w) => w.priority },
                { key: 'since', title: t('since'), value: (w) => w.since, show: (w) => i18n.dateTime(w.since) },
                { key: 'credits', title: t('estimated'), end: true, value: (w) => w.estimated_credits, show: (w) => i18n.credits(w.estimated_credits) },
                { key: 'source', title: t('source'), value: (w) => (w.namespace && w.name ? `${w.namespace}/${w.name}` : w.source) },
                { key: 'id', title: t('id'), value: (w) => w.id, taken: true },
              ]}
            />
          </section>
        </div>
      )}
    </>
  );
}
