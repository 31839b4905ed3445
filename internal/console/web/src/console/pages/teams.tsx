// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The tree of teams, and what each has used of what it may.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { Trouble } from '../../lib/parts';
import { useResource } from '../../lib/resource';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Of, teamAt, UserLink } from '../parts';
import { Standings } from './user';

type Team = Schemas['Team'];

/** Each team behind the one above it, with how deep it is. One whose parent is not among them is at the top. */
export function tree(teams: readonly Pick<Team, 'name' | 'parent'>[]): Map<string, { path: string; depth: number }> {
  const parents = new Map(teams.map((team) => [team.name, team.parent]));
  const places = new Map<string, { path: string; depth: number }>();
  for (const { name } of teams) {
    const above: string[] = [];
    for (let at: string | undefined = name; at && parents.has(at) && !above.includes(at); at = parents.get(at)) above.unshift(at);
    places.set(name, { path: above.join('/'), depth: above.length - 1 });
  }
  return places;
}

export function Teams() {
  const { t } = useI18n();
  const api = useApi();
  const list = useList('teams', (cursor, signal) =>
    take(api.client.GET('/api/v1/teams', { params: { query: { limit: 100, ...cursor } }, signal })));
  const teams = list.pages?.flatMap((page) => page.teams);
  const places = tree(teams ?? []);
  const own = (team: Team) => team.levels.find((level) => level.level.name === team.name);
  return (
    <>
      <header><h1>{t('teams')}</h1></header>
      {list.error && <Trouble error={list.error} again={list.reload} />}
      {!list.error && (
        <Table<Team>
          caption={t('teams')} file="teams" rows={teams} rowKey={(team) => team.name} more={list.more} sort="team"
          columns={[
            {
              key: 'team', title: t('team'), heads: true, value: (team) => places.get(team.name)?.path,
              show: (team) => (
                <span style={{ paddingInlineStart: `${1.25 * (places.get(team.name)?.depth ?? 0)}rem` }}>
                  <Link href={teamAt(team.name)}>{team.name}</Link>
                </span>
              ),
            },
            { key: 'name', title: t('name'), value: (team) => team.display_name },
            { key: 'plan', title: t('plan'), value: (team) => team.plan?.display_name },
            { key: 'members', title: t('members'), end: true, value: (team) => team.members },
            { key: 'used', title: t('used'), end: true, value: (team) => own(team)?.used_credits, show: (team) => <Of used={own(team)?.used_credits ?? 0} limit={own(team)?.limit_credits} /> },
            { key: 'running', title: t('running'), end: true, value: (team) => own(team)?.running, show: (team) => <Of used={own(team)?.running ?? 0} limit={own(team)?.concurrent_limit} /> },
            { key: 'queued', title: t('waiting'), end: true, value: (team) => own(team)?.queued, show: (team) => <Of used={own(team)?.queued ?? 0} limit={own(team)?.queued_limit} /> },
            { key: 'weight', title: t('weight'), end: true, value: (team) => team.weight },
          ]}
        />
      )}
    </>
  );
}

export function OneTeam({ name = '' }: Record<string, string>) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const team = useResource(`team/${name}`, (signal) =>
    take(api.client.GET('/api/v1/teams/{name}', { params: { path: { name } }, signal })));
  const members = useList(`members/${name}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/teams/{name}/members', { params: { path: { name }, query: { limit: 100, ...cursor } }, signal })));
  const of = team.data;
  return (
    <>
      <header>
        <h1>{name}</h1>
        {of && (
          <p class="minor">
            {of.display_name}
            {of.parent && <> · {t('below')} <Link href={teamAt(of.parent)}>{of.parent}</Link></>}
            {of.plan && <> · {of.plan.display_name}</>}
          </p>
        )}
      </header>
      {team.error && <Trouble error={team.error} again={team.reload} />}
      {of && (
        <div class="stack">
          <section class="card">
            <h2>{t('levels')}</h2>
            <Standings rows={of.levels} file={`levels-${name}`} />
          </section>
          <section class="card">
            <h2>{t('members')}</h2>
            {members.error && <Trouble error={members.error} again={members.reload} />}
            {!members.error && (
              <Table<Schemas['TeamMember']>
                caption={t('members')} file={`members-${name}`} rows={members.pages?.flatMap((page) => page.members)}
                rowKey={(m) => m.user_id} more={members.more} sort="-used"
                columns={[
                  { key: 'user', title: t('user'), heads: true, value: (m) => m.user_id, show: (m) => <UserLink id={m.user_id} /> },
                  { key: 'team', title: t('team'), value: (m) => m.team, show: (m) => m.team && <Link href={teamAt(m.team)}>{m.team}</Link> },
                  { key: 'used', title: t('used'), end: true, value: (m) => m.used_credits, show: (m) => i18n.credits(m.used_credits) },
                  { key: 'running', title: t('running'), end: true, value: (m) => m.running },
                  { key: 'queued', title: t('waiting'), end: true, value: (m) => m.queued },
                ]}
              />
            )}
          </section>
        </div>
      )}
    </>
  );
}
