// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What the user was told of its limits. A new one is read out when it arrives.

import { useEffect, useState } from 'preact/hooks';
import { take } from '../lib/api';
import { useApi } from '../lib/api-context';
import { words } from '../lib/alert';
import { useI18n, type I18n } from '../lib/i18n';
import { Trouble } from '../lib/parts';
import { Refused } from '../lib/api';
import type { UsageKey } from '../i18n';
import { useFresh } from './fresh';
import type { Alert } from './use-usage';

export function Alerts({ of, news, path, upgrade, read: wasRead }: {
  /** A user's id or a team's name, which changes when others are meant. */
  of: string;
  news: readonly Alert[];
  path: 'user' | 'team';
  /** Where a larger plan is bought, for who can do so. */
  upgrade?: string | undefined;
  /** Called once they are there, or cannot be read. */
  read?: () => void;
}) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const [marked, setMarked] = useState<readonly Alert[]>([]);
  const [refused, setRefused] = useState<Error>();
  const fresh = useFresh(`alerts/${path}/${of}`, '', (signal) => path === 'user'
    ? take(api.client.GET('/api/v1/usage/alerts', { params: { query: { user_id: of, limit: 20 } }, signal }))
    : take(api.client.GET('/api/v1/teams/{name}/alerts', { params: { path: { name: of }, query: { limit: 20 } }, signal })));
  const { data, error } = fresh;
  useEffect(() => {
    if (data || error) wasRead?.();
  }, [data, error]);
  const known = new Map<string, Alert>();
  for (const alert of [...marked, ...news, ...(data?.alerts ?? [])]) if (!known.has(alert.id)) known.set(alert.id, alert);
  const alerts = [...known.values()].sort((a, b) => b.raised_at.localeCompare(a.raised_at));
  // What is over needs nobody: a year of periods that have ended would hide what does.
  const open = alerts.filter((a) => !a.acknowledged_at && !a.resolved_at);
  const read = alerts.filter((a) => a.acknowledged_at || a.resolved_at);

  const acknowledge = async (alert: Alert) => {
    setRefused(undefined);
    try {
      const now = await take(api.client.POST('/api/v1/usage/alerts/{id}/acknowledge', { params: { path: { id: alert.id } } }));
      setMarked((were) => [now, ...were.filter((a) => a.id !== now.id)]);
      // The button that had the focus is gone; a keyboard goes on from here.
      fresh.place.current?.focus();
    } catch (error) {
      setRefused(error as Error);
    }
  };
  return (
    <section class="card" aria-labelledby={`usage-alerts-${path}`} ref={fresh.place} tabIndex={-1}>
      <h2 id={`usage-alerts-${path}`}>{t('alerts')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      {refused && <p class="notice bad" role="alert">{refused instanceof Refused ? refused.message : t('failedOffline')}</p>}
      {data && alerts.length === 0 && <p class="minor">{t('noAlerts')}</p>}
      <ul class="list" aria-live="polite">
        {open.map((alert) => (
          <li key={alert.id} class={`alert ${alert.severity}`}>
            <Words alert={alert} upgrade={upgrade} />
            {api.signedIn && (
              <button type="button" class="quiet" onClick={() => void acknowledge(alert)}>
                {t('acknowledge')}<span class="unseen">: {words(alert, i18n)}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
      {read.length > 0 && (
        <details>
          <summary>{i18n.plural('readAlerts', read.length)}</summary>
          <ul class="list">
            {read.map((alert) => <li key={alert.id} class="alert info"><Words alert={alert} /></li>)}
          </ul>
        </details>
      )}
    </section>
  );
}

/** What a larger plan would help against. */
const upgradable: readonly Alert['kind'][] = ['CreditsPercent', 'Overdrawn', 'ExhaustionForecast'];

function Words({ alert, upgrade }: { alert: Alert; upgrade?: string | undefined }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  return (
    <div>
      <strong>{t(`severity.${alert.severity}`)}</strong> {words(alert, i18n)}
      <div class="minor">
        {alert.severity !== 'info' && !alert.resolved_at && <>{action(alert, i18n)} </>}
        {upgrade && upgradable.includes(alert.kind) && !alert.resolved_at && <><a href={upgrade} target="_top" rel="noopener">{t('upgrade')}</a> · </>}
        {i18n.dateTime(alert.raised_at)}
        {alert.resolved_at && <> · {t('resolved', { date: i18n.dateTime(alert.resolved_at) })}</>}
        {alert.acknowledged_by && <> · {t('acknowledgedBy', { who: alert.acknowledged_by })}</>}
      </div>
    </div>
  );
}

/** What to do about it: whoever runs a team has nobody to ask for more of it. */
function action(alert: Alert, i18n: I18n<UsageKey>): string {
  if (alert.kind === 'TeamShare' && alert.level.kind === 'Team') return i18n.t('actionOfTeam');
  const key = `action.${alert.kind}`;
  const text = i18n.t(key as UsageKey);
  return text === key ? alert.action : text;
}
