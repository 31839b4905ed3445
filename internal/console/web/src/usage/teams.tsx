// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A member sees where the teams above stand; who runs a team sees its page.

import { useEffect, useState } from 'preact/hooks';
import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { makeClock } from '../lib/clock';
import { useI18n } from '../lib/i18n';
import { Link } from '../lib/router';
import { Figure, LiveMark, Trouble } from '../lib/parts';
import { Table } from '../lib/table';
import { useStream } from '../lib/use-stream';
import type { UsageKey } from '../i18n';
import { Alerts } from './alerts';
import { Stale, useFresh } from './fresh';
import { Largest } from './largest';
import { Pace } from './pace';
import { Bar } from './summary';
import type { Alert, Standing } from './use-usage';

type Level = Schemas['LevelStanding'];

export function TeamShare({ now }: { now: Standing }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const own = now.levels?.find((level) => level.level.kind === 'User');
  const above = now.levels?.filter((level) => level.level.kind === 'Team') ?? [];
  if (above.length === 0) return null;
  return (
    <section class="card" aria-labelledby="usage-team">
      <h2 id="usage-team">{t('team')}</h2>
      {above.map((level) => (
        <div class="level" key={level.level.name}>
          <h3>
            {level.level.name} {level.pays && <small>{t('pays')}</small>}
          </h3>
          <LevelFigures level={level} />
          {own && own.period_start === level.period_start && (
            <p data-share>
              {t('share', { credits: i18n.credits(own.used_credits), share: i18n.percent(level.used_credits > 0 ? own.used_credits / level.used_credits : 0) })}
            </p>
          )}
          {api.signedIn && <p><Link href={`?team=${encodeURIComponent(level.level.name)}`}>{t('teamPage', { team: level.level.name })}</Link></p>}
        </div>
      ))}
    </section>
  );
}

function LevelFigures({ level }: { level: Level }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  return (
    <>
      {level.suspended && <p class="notice bad">{t('teamSuspended')}</p>}
      <Bar used={level.used_credits} reserved={level.reserved_credits} limit={level.limit_credits} />
      <dl class="figures">
        <Figure name={t('used')}>{i18n.credits(level.used_credits)}</Figure>
        <Figure name={t('reserved')}>{i18n.credits(level.reserved_credits)}</Figure>
        <Figure name={t('left')}>{level.remaining_credits === undefined ? t('unlimited') : i18n.credits(level.remaining_credits)}</Figure>
        <Figure name={t('limit')}>{level.limit_credits === undefined ? t('unlimited') : i18n.credits(level.limit_credits)}</Figure>
        <Figure name={t('running')}>{i18n.number(level.running)}{level.concurrent_limit !== undefined && ` / ${i18n.number(level.concurrent_limit)}`}</Figure>
        <Figure name={t('waiting')}>{i18n.number(level.queued)}</Figure>
      </dl>
      <p class="minor">{t('resets', { date: i18n.dateTime(level.resets_at) })}</p>
    </>
  );
}

/** For who runs a team: where it stands, and what each member has used. */
export function TeamPage({ name }: { name: string }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const [team, setTeam] = useState<Schemas['TeamStanding']>();
  const [news, setNews] = useState<readonly Alert[]>([]);
  const [alerted, setAlerted] = useState(false);
  const [clock] = useState(makeClock);
  useEffect(() => () => clock.stop(), [clock]);
  const { state, refused } = useStream(`/api/v1/usage/stream?team=${encodeURIComponent(name)}`, (event, data) => {
    if (event === 'team') {
      const next = data as Schemas['TeamStanding'];
      clock.seen(next.as_of);
      setTeam(next);
    }
    if (event === 'alert') setNews((were) => [data as Alert, ...were]);
  });
  const level = team?.levels[0];
  // The use of a period that has ended is not shown as that of the new one, which the stream tells within a second.
  const turning = level !== undefined && clock.now.value >= Date.parse(level.resets_at);
  return (
    <>
      <header>
        <h1>{t('teamTitle', { team: name })}</h1>
        {!refused && <LiveMark state={state} />}
        <Link href="/usage">{t('myUsage')}</Link>
      </header>
      {refused && <Trouble error={refused} />}
      {!refused && !level && <p class="minor">{t('loading')}</p>}
      {level && (
        <div class="panels">
          <section class="card" aria-labelledby="team-now">
            <h2 id="team-now">{t('summary')} {team.plan && <span class="plan">{team.plan.display_name}</span>}</h2>
            {turning ? (
              <p class="notice" role="status" data-turning>{t('turning', { end: i18n.dateTime(level.resets_at) })}</p>
            ) : <LevelFigures level={level} />}
          </section>
          {level.pays && !turning && <Pace of={name} path="team" now={level} clock={clock.now.value} />}
          <Alerts of={name} news={news} path="team" read={() => setAlerted(true)} />
          {/* Not before, or else they would push it away under the reader's eyes. */}
          {alerted && <Members name={name} version={`${level.used_credits}/${level.running}/${level.queued}`} />}
          {alerted && level.pays && <Largest of={name} path="team" clock={clock.now.value} />}
        </div>
      )}
    </>
  );
}

function Members({ name, version }: { name: string; version: string }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const [pages, setPages] = useState(1);
  const fresh = useFresh(`members/${name}/${pages}`, version, async (signal) => {
    const found: Schemas['TeamMember'][] = [];
    let cursor: string | undefined;
    for (let page = 0; page < pages && (page === 0 || cursor); page++) {
      const next = await take(api.client.GET('/api/v1/teams/{name}/members', {
        params: { path: { name }, query: { limit: 100, ...(cursor ? { cursor } : {}) } }, signal,
      }));
      found.push(...next.members);
      cursor = next.next_cursor;
    }
    return { found, more: cursor !== undefined };
  });
  const { data, error } = fresh;
  const whole = data?.found.reduce((sum, m) => sum + m.used_ms, 0) ?? 0;
  return (
    <section class="card wide" aria-labelledby="team-members" ref={fresh.place}>
      <h2 id="team-members">{t('members')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      <Stale of={fresh} />
      {!error && (
        <Table<Schemas['TeamMember']>
          caption={t('members')}
          file={`team-${name}`}
          sort="-used"
          rows={data?.found}
          rowKey={(m) => m.user_id}
          more={data?.more ? () => setPages(pages + 1) : undefined}
          columns={[
            { key: 'user', title: t('member'), heads: true, value: (m) => m.user_id },
            { key: 'used', title: t('used'), end: true, value: (m) => m.used_credits, show: (m) => i18n.credits(m.used_credits) },
            { key: 'share', title: t('shareOf'), end: true, value: (m) => (whole > 0 ? m.used_ms / whole : 0),
              show: (m) => i18n.percent(whole > 0 ? m.used_ms / whole : 0) },
            { key: 'team', title: t('team'), value: (m) => m.team },
            { key: 'running', title: t('running'), end: true, value: (m) => m.running },
            { key: 'queued', title: t('waiting'), end: true, value: (m) => m.queued },
          ]}
        />
      )}
    </section>
  );
}
