// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What an alert says.

import type { AlertKey } from '../i18n';
import type { Schemas } from './api';
import type { I18n, Values } from './i18n';

type Alert = Schemas['Alert'];

// A kind that the contract has and this list has not is named by the compiler; one of a newer service has its own words.
const texts: Record<Alert['kind'], AlertKey> = {
  CreditsPercent: 'alert.CreditsPercent', TeamShare: 'alert.TeamShare', DailyCostPercent: 'alert.DailyCostPercent',
  Overdrawn: 'alert.Overdrawn', ExhaustionForecast: 'alert.ExhaustionForecast', GrantExpiring: 'alert.GrantExpiring',
  PeriodReset: 'alert.PeriodReset',
};

/** The alert in the page's language; in the service's own words where its kind is not known here. */
export function words(alert: Alert, i18n: I18n<AlertKey>): string {
  const amount = (value: number) => (alert.currency ? i18n.money(value, alert.currency) : i18n.credits(value));
  const values: Values = {
    percent: alert.threshold_percent ?? 0, used: amount(alert.used), limit: alert.limit === undefined ? '' : amount(alert.limit),
    grant: alert.grant ?? '', ends: i18n.dateTime(alert.ends_at),
  };
  if (alert.closed_period) {
    values.start = i18n.date(alert.closed_period.start);
    values.end = i18n.date(alert.closed_period.end);
    values.used = i18n.credits(alert.closed_period.used_credits);
  }
  if (alert.exhausted_at) values.exhausted = i18n.dateTime(alert.exhausted_at);
  const key: AlertKey | undefined = texts[alert.kind];
  return key ? i18n.t(key, values) : alert.message;
}
