// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Used, reserved, left and limit in one unit, the lots that they come from, and when it begins anew.

import { useI18n } from '../lib/i18n';
import type { UsageKey } from '../i18n';
import type { Schemas } from '../lib/api';
import { Figure } from '../lib/parts';
import type { Standing, Usage } from './use-usage';

/** A bar of what is used and reserved of a limit; none where there is no limit. The figures beside it say the same to those who listen. */
export function Bar({ used, reserved, limit }: { used: number; reserved: number; limit: number | undefined }) {
  if (limit === undefined) return null;
  const whole = Math.max(limit, used + reserved, 1e-9);
  const width = (part: number) => ({ width: `${(100 * part) / whole}%` });
  const share = limit ? used / limit : 0;
  return (
    <div class={`meter ${share >= 1 ? 'full' : share >= 0.8 ? 'high' : ''}`} aria-hidden="true">
      <span class="fills used" style={width(used)} />
      <span class="fills reserved" style={width(reserved)} />
    </div>
  );
}

/** Of one's own limit where one has one, else what the teams above leave. */
function limitOf(standing: Standing): number | undefined {
  if (standing.limit_credits !== undefined) return standing.limit_credits;
  if (standing.remaining_credits === undefined) return undefined;
  return standing.used_credits + standing.reserved_credits + standing.remaining_credits;
}

export function Summary({ usage }: { usage: Usage }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const { standing: now, turning, clock } = usage;
  if (!now) return null;
  const limit = limitOf(now);
  const left = now.remaining_credits;
  return (
    <section class="card summary" aria-labelledby="usage-summary">
      <h2 id="usage-summary">
        {t('summary')} <span class="plan">{now.plan.display_name}</span>
      </h2>
      {now.suspended && <p class="notice bad">{t('suspended')}</p>}
      {turning ? (
        <p class="notice" role="status" data-turning>{t('turning', { end: i18n.dateTime(now.resets_at) })}</p>
      ) : (
        <>
          <p class="left">
            <strong data-left>{left === undefined ? t('unlimited') : i18n.credits(left)}</strong>{' '}
            {left !== undefined && <span>{t('creditsLeft')}</span>}
          </p>
          <Bar used={now.used_credits} reserved={now.reserved_credits} limit={limit} />
          <dl class="figures">
            <Figure name={t('used')} note={limit ? i18n.percent(now.used_credits / limit) : undefined}>
              <span data-used>{i18n.credits(now.used_credits)}</span>
            </Figure>
            <Figure name={t('reserved')}>{i18n.credits(now.reserved_credits)}</Figure>
            <Figure name={t('left')}>{left === undefined ? t('unlimited') : i18n.credits(left)}</Figure>
            <Figure name={t('limit')}>{limit === undefined ? t('unlimited') : i18n.credits(limit)}</Figure>
            <Figure name={t('running')}>{i18n.number(now.running)}</Figure>
            <Figure name={t('waiting')}>{i18n.number(now.queued)}</Figure>
          </dl>
          <p class="resets">
            {t('resets', { date: i18n.dateTime(now.resets_at) })}{' '}
            <span class="minor">{t('in', { duration: i18n.duration(Date.parse(now.resets_at) - clock.now.value) })}</span>
          </p>
          <p class="minor">{t('units')}</p>
          {owed(now).map((amount) => (
            <p key={amount.currency} class="minor">{t('owed', { price: i18n.money(amount.price, amount.currency) })}</p>
          ))}
          {now.lots && now.lots.length > 1 && <Lots lots={now.lots} />}
        </>
      )}
      {now.last_period && (
        <p class="minor">
          {t('lastPeriod', {
            start: i18n.date(now.last_period.start), end: i18n.date(now.last_period.end),
            used: i18n.credits(now.last_period.used_credits),
          })}
        </p>
      )}
    </section>
  );
}

const owed = (now: Standing) => now.amounts.filter((amount) => amount.price > 0);

function Lots({ lots }: { lots: readonly Schemas['Lot'][] }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  return (
    <div class="lots">
      <h3>{t('lots')}</h3>
      <ol>
        {lots.map((lot) => (
          <li key={`${lot.kind}/${lot.name ?? ''}`}>
            <span class="what">
              {i18n.code('lot', lot.kind)}
              {lot.kind === 'grant' && lot.name && <small> {lot.name}</small>}
            </span>
            <span class="much">
              {lot.remaining_credits === undefined || lot.credits === undefined
                ? t('unlimited')
                : t('leftOf', { left: i18n.credits(lot.remaining_credits), all: i18n.credits(lot.credits) })}
            </span>
            <span class="minor">{lot.ends_at ? t('until', { date: i18n.dateTime(lot.ends_at) }) : t('noEnd')}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}
