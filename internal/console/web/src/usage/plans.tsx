// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The plan against the next ones: what the period's use costs, and would cost, with the arithmetic.

import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from '../lib/i18n';
import { Trouble } from '../lib/parts';
import type { UsageKey } from '../i18n';
import { Stale, useFresh } from './fresh';
import type { Standing } from './use-usage';

type Bill = Schemas['Bill'];

export function Plans({ now, upgrade }: { now: Standing; upgrade: string | undefined }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  const fresh = useFresh(
    `bills/${now.user_id}/${now.plan.name}`, `${now.used_credits}/${now.plan.name}`,
    (signal) => take(api.client.GET('/api/v1/usage/what-if', { params: { query: { user_id: now.user_id } }, signal })),
  );
  const { data, error } = fresh;
  const at = data?.bills.findIndex((bill) => bill.plan.name === now.plan.name) ?? -1;
  const shown = data && (at < 0 ? data.bills.slice(0, 2) : data.bills.slice(at, at + 2));
  return (
    <section class="card" aria-labelledby="usage-plans" ref={fresh.place}>
      <h2 id="usage-plans">{t('plans')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      <Stale of={fresh} />
      {shown && <p class="minor">{t('plansWhat')}</p>}
      <div class="bills">
        {shown?.map((bill) => <Sum key={bill.plan.name} bill={bill} mine={bill.plan.name === now.plan.name} />)}
      </div>
      {data && at >= 0 && at === data.bills.length - 1 && <p class="minor">{t('largest')}</p>}
      {upgrade && data && at < data.bills.length - 1 && (
        <p><a class="button" href={upgrade} target="_top" rel="noopener">{t('upgrade')}</a></p>
      )}
    </section>
  );
}

function Sum({ bill, mine }: { bill: Bill; mine: boolean }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const money = (amount: number) => i18n.money(amount, bill.currency);
  return (
    <div class={`bill ${mine ? 'mine' : ''}`}>
      <h3>{bill.plan.display_name}{mine && <small> {t('yours')}</small>}</h3>
      <dl>
        <div><dt>{t('base')}</dt><dd>{money(bill.price_per_period)}</dd></div>
        <div>
          <dt>{t('included')}</dt>
          <dd>{bill.included_credits === undefined ? t('unlimited') : i18n.credits(bill.included_credits)}</dd>
        </div>
        {bill.paid_by_grants_credits > 0 && (
          <div><dt>{t('byGrants')}</dt><dd>{i18n.credits(bill.paid_by_grants_credits)}</dd></div>
        )}
        {bill.overage_credits > 0 && (
          <div>
            <dt>{t('beyond', { credits: i18n.credits(bill.overage_credits), price: money(bill.price_per_credit) })}</dt>
            <dd>{money(bill.overage_price)}</dd>
          </div>
        )}
        {bill.refused_credits > 0 && (
          <div class="refused"><dt>{t('refusedCredits')}</dt><dd>{i18n.credits(bill.refused_credits)}</dd></div>
        )}
        <div class="total"><dt>{t('total')}</dt><dd>{money(bill.total)}</dd></div>
      </dl>
    </div>
  );
}
