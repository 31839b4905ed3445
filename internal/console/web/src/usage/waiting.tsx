// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Work that waits: what for, at which place, and when it is to be expected to start.

import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from '../lib/i18n';
import { Trouble } from '../lib/parts';
import type { UsageKey } from '../i18n';
import { Stale, useFresh } from './fresh';
import type { Standing } from './use-usage';

type Admission = Schemas['Admission'];

/** So many are told with their place and start, for which each has to be asked. */
const SHOWN = 5;

export function Waiting({ now }: { now: Standing }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const fresh = useFresh<Admission[]>(`waiting/${now.user_id}`, `${now.queued}/${now.running}/${now.used_credits}`, async (signal) => {
    if (now.queued === 0) return [];
    const page = await take(api.client.GET('/api/v1/admissions', {
      params: { query: { user_id: now.user_id, state: 'Queued', limit: 100 } }, signal,
    }));
    const oldest = page.admissions.toReversed();
    return Promise.all(oldest.map((admission, i) =>
      i < SHOWN ? take(api.client.GET('/api/v1/admissions/{id}', { params: { path: { id: admission.id } }, signal })) : admission));
  });
  const { data, error } = fresh;
  const waiting = data?.filter((admission) => admission.state === 'Queued');
  return (
    <section class="card" aria-labelledby="usage-waiting" ref={fresh.place}>
      <h2 id="usage-waiting">{t('waitingWork')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      <Stale of={fresh} />
      {waiting && waiting.length === 0 && <p class="minor">{t('nothingWaits')}</p>}
      {waiting && waiting.length > 0 && (
        <ol class="list">
          {waiting.slice(0, SHOWN).map((admission) => <Wait key={admission.id} of={admission} />)}
        </ol>
      )}
      {waiting && waiting.length > SHOWN && <p class="minor">{i18n.plural('moreWait', Math.max(now.queued, waiting.length) - SHOWN)}</p>}
    </section>
  );
}

function Wait({ of }: { of: Admission }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const { binding, estimated_start: start } = of;
  const reason = binding?.reason ?? of.reason;
  return (
    <li>
      <div>
        <strong>{t('audioOf', { length: i18n.duration(of.estimated_duration_seconds * 1000) })}</strong>{' '}
        <span class="minor">{t('estimated', { credits: i18n.credits(of.estimated_credits) })} · {t('since', { date: i18n.dateTime(of.created_at) })}</span>
      </div>
      <div>
        {reason ? i18n.code('reason', reason) : t('reason.NotFirst')}
        {binding?.level.kind === 'Team' && <> {t('atTeam', { team: binding.level.name })}</>}
        {binding?.limit !== undefined && binding.used !== undefined && binding.unit === 'credits' && (
          <> {t('bindingNumbers', { used: i18n.credits(binding.used), limit: i18n.credits(binding.limit) })}</>
        )}
      </div>
      <div class="minor">
        {binding?.position !== undefined && (binding.waiting !== undefined
          ? t('placeOf', { place: binding.position, all: binding.waiting })
          : t('place', { place: binding.position }))}
        {binding?.position === undefined && of.position !== undefined && t('place', { place: of.position })}
        {start && <> · {t('starts', { range: i18n.range(start.earliest, start.latest) })}</>}
        {!start && binding?.resets_at && <> · {t('changes', { date: i18n.dateTime(binding.resets_at) })}</>}
      </div>
    </li>
  );
}
