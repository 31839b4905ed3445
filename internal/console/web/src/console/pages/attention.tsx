// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What is not as it should be and does not mend itself, which level works on how much, and the clusters.

import type { ComponentChildren } from 'preact';
import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { Trouble } from '../../lib/parts';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useAgain, useList } from '../list';
import { LevelLink, Long, Of, userAt } from '../parts';

/** How often it is read again, as long as it is looked at, in milliseconds. */
const AGAIN = 15_000;
/** So many are counted of what may be many. */
const MOST = 100;
/** So many of the work that seems stuck are named, the oldest ones. */
const OLDEST = 3;
/** A leader says every 15 s that its cluster is there. */
const SILENT = 60;

export function Attention() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const dead = useList('dead', (cursor, signal) =>
    take(api.client.GET('/api/v1/deliveries', { params: { query: { state: 'dead', limit: MOST, ...cursor } }, signal })));
  const resets = (state: 'due' | 'overdue') => useList(state, (cursor, signal) =>
    take(api.client.GET('/api/v1/resets', { params: { query: { state, limit: MOST, ...cursor } }, signal })));
  const due = resets('due');
  const overdue = resets('overdue');
  const runs = useList('runs', (cursor, signal) =>
    take(api.client.GET('/api/v1/reset-runs', { params: { query: { limit: 20, ...cursor } }, signal })));
  const stuck = useList('stuck', (cursor, signal) =>
    take(api.client.GET('/api/v1/admissions', { params: { query: { stuck: true, limit: MOST, ...cursor } }, signal })));
  const clusters = useList<Schemas['Clusters'] & { next_cursor?: string }>('clusters', (_, signal) =>
    take(api.client.GET('/api/v1/clusters', { signal })));
  const teams = useList('work', (cursor, signal) =>
    take(api.client.GET('/api/v1/teams', { params: { query: { limit: MOST, ...cursor } }, signal })));
  const all = [dead, due, overdue, runs, stuck, clusters, teams];
  useAgain(AGAIN, () => all.forEach((list) => list.reload()), (teams.pages?.length ?? 0) <= 1);

  const counted = (n: number, more: unknown) => `${i18n.number(n)}${more ? '+' : ''}`;
  const needs: { key: string; what: ComponentChildren }[] = [];
  const given = dead.pages?.[0]?.deliveries.length ?? 0;
  if (given > 0) {
    needs.push({ key: 'dead', what: <Link href="/console/deliveries?state=dead">{t('needs.dead', { n: counted(given, dead.more) })}</Link> });
  }
  const ended = (text: 'needs.due' | 'needs.overdue', { pages, more }: typeof due) => {
    const page = pages?.[0];
    const [first] = page?.resets ?? [];
    const what = first && t(text, { n: counted(page!.resets.length, more), ago: i18n.duration(Date.parse(page!.as_of) - Date.parse(first.period_end)) });
    return what && <Link href="/console/resets">{what}</Link>;
  };
  const late = ended('needs.overdue', overdue);
  if (late) needs.push({ key: 'overdue', what: late });
  for (const run of latest(runs.pages?.[0]?.runs ?? [])) {
    if (run.state !== 'Failed' && run.state !== 'Lost') continue;
    needs.push({
      key: `run ${run.plan}`,
      what: (
        <Link href={`/console/resets?plan=${encodeURIComponent(run.plan)}`}>
          {t('needs.run', { plan: run.plan, state: i18n.code('run', run.state), at: i18n.dateTime(run.started_at) })}
        </Link>
      ),
    });
  }
  const work = stuck.pages?.[0]?.admissions ?? [];
  if (work.length > 0) {
    needs.push({
      key: 'stuck',
      what: (
        <>
          {t('needs.stuck', { n: counted(work.length, stuck.more) })}
          <ul>
            {work.slice(0, OLDEST).map((a) => (
              <li key={a.id}>
                <Link href={`${userAt(a.user_id)}?tab=work&stuck=true&q=${a.id}`}>
                  {t('needs.stuckOne', { user: a.user_id, why: i18n.code('stuck', a.stuck ?? ''), at: i18n.dateTime(a.admitted_at ?? a.created_at) })}
                </Link>
              </li>
            ))}
          </ul>
        </>
      ),
    });
  }
  const shared = clusters.pages?.[0]?.clusters;
  for (const c of shared ?? []) {
    if (c.silent_seconds > SILENT) needs.push({ key: `cluster ${c.uid}`, what: t('needs.cluster', { name: c.name, ago: i18n.duration(c.silent_seconds * 1000) }) });
  }
  const reading = [dead, due, overdue, runs, stuck, clusters].some((list) => !list.pages && !list.error);
  const rows = teams.pages?.flatMap((page) => page.teams.flatMap((team) => {
    const own = team.levels.find((level) => level.level.name === team.name);
    return own && own.running + own.queued > 0 ? [own] : [];
  }));
  return (
    <>
      <section class="card" data-needs={reading ? undefined : needs.length}>
        <h2>{t('needs')}</h2>
        {[dead, due, overdue, runs, stuck].map((list, i) => list.error && <Trouble key={i} error={list.error} again={list.reload} />)}
        {needs.length > 0 && <ul class="needs">{needs.map(({ key, what }) => <li key={key}>{what}</li>)}</ul>}
        {needs.length === 0 && <p class="minor">{reading ? t('loading') : t('needs.none')}</p>}
        {!late && <p class="minor">{ended('needs.due', due)}</p>}
      </section>
      <section class="card">
        <h2>{t('workByLevel')}</h2>
        {teams.error
          ? <Trouble error={teams.error} again={teams.reload} />
          : (
            <Table<Schemas['LevelStanding']>
              caption={t('workByLevel')} file="work-by-level" prefix="w" filter="none" sort="-running" rows={rows} rowKey={(s) => s.level.name}
              more={teams.more} empty={t('workByLevelNone')}
              columns={[
                { key: 'level', title: t('team'), heads: true, value: (s) => s.level.name, show: (s) => <LevelLink level={s.level} /> },
                { key: 'running', title: t('running'), end: true, value: (s) => s.running, show: (s) => <Of used={s.running} limit={s.concurrent_limit} /> },
                { key: 'queued', title: t('waiting'), end: true, value: (s) => s.queued, show: (s) => <Of used={s.queued} limit={s.queued_limit} /> },
              ]}
            />
          )}
      </section>
      <section class="card">
        <h2>{t('clusters')}</h2>
        {clusters.error
          ? <Trouble error={clusters.error} again={clusters.reload} />
          : (
            <Table<Schemas['Cluster']>
              caption={t('clusters')} file="clusters" prefix="c" filter="none" rows={shared} rowKey={(c) => c.uid} empty={t('clustersNone')}
              columns={[
                { key: 'name', title: t('name'), heads: true, value: (c) => c.name, show: (c) => <Long>{c.name}</Long> },
                {
                  key: 'silent', title: t('lastHeard'), end: true, value: (c) => c.silent_seconds,
                  show: (c) => <span class={c.silent_seconds > SILENT ? 'bad' : undefined}>{t('ago', { ago: i18n.duration(c.silent_seconds * 1000) })}</span>,
                },
                { key: 'since', title: t('since'), value: (c) => c.first_seen_at, show: (c) => i18n.date(c.first_seen_at) },
                { key: 'uid', title: t('id'), value: (c) => c.uid, taken: true },
              ]}
            />
          )}
      </section>
    </>
  );
}

/** The last run of each plan; they come the last first. */
export function latest<R extends { plan: string }>(runs: readonly R[]): R[] {
  return runs.filter((run, i) => runs.findIndex((other) => other.plan === run.plan) === i);
}
