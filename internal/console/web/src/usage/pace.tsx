// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// How fast the credits go: what was used by day, what is expected of the rest of the period, and when they will be gone.

import { useEffect, useRef, useState } from 'preact/hooks';
import { useI18n } from '../lib/i18n';
import { take, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { Trouble } from '../lib/parts';
import type { UsageKey } from '../i18n';
import { Stale, useFresh } from './fresh';

type Forecast = Schemas['UsageForecast'];
/** What is foretold from: a user's standing, or that of a team that pays. */
type Now = Pick<Schemas['LevelStanding'], 'used_credits' | 'limit_credits' | 'period_start' | 'resets_at'>;

export function Pace({ of, path, now, clock }: { of: string; path: 'user' | 'team'; now: Now; clock: number }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const api = useApi();
  // A forecast is drawn from whole days: it changes by the use of the day, which is known without it.
  const fresh = useFresh<Forecast>(
    `forecast/${path}/${of}`, `${now.period_start}/${Math.floor(clock / 3_600_000)}`,
    (signal) => take(path === 'user'
      ? api.client.GET('/api/v1/usage/forecast', { params: { query: { user_id: of } }, signal })
      : api.client.GET('/api/v1/teams/{name}/forecast', { params: { path: { name: of } }, signal })),
  );
  const { data: forecast, error } = fresh;
  return (
    <section class="card" aria-labelledby="usage-pace" ref={fresh.place}>
      <h2 id="usage-pace">{t('pace')}</h2>
      {error && <Trouble error={error} again={fresh.reload} />}
      {!forecast && !error && <p class="minor pace-waits">{t('loading')}</p>}
      {forecast && (
        <>
          <Chart now={now} forecast={forecast} clock={clock} zone={path === 'user' ? zoneOf(Date.parse(now.period_start)) : 0} />
          <Words forecast={forecast} now={now} />
          <Stale of={fresh} />
        </>
      )}
    </section>
  );
}

function Words({ forecast, now }: { forecast: Forecast; now: Now }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const { used_at_end: end, exhausted } = forecast;
  if (forecast.answer === 'insufficient_history' || !end) {
    return (
      <p class="notice" data-insufficient>
        {t('insufficient')} {forecast.reason && i18n.code('insufficient', forecast.reason)}
      </p>
    );
  }
  const when = exhausted?.expected ?? exhausted?.latest ?? exhausted?.earliest;
  return (
    <>
      <p data-forecast>
        {t('expected', {
          end: i18n.date(now.resets_at), expected: i18n.credits(round(end.expected)), low: i18n.credits(round(end.low)),
          high: i18n.credits(round(end.high)),
        })}
      </p>
      {forecast.allowance_credits !== undefined && (
        <p>
          {!when && t('lasts', { all: i18n.credits(forecast.allowance_credits) })}
          {exhausted?.expected && t('goneExpected', { date: i18n.dateTime(exhausted.expected) })}
          {!exhausted?.expected && exhausted?.earliest && t('goneMaybe', { date: i18n.dateTime(exhausted.earliest) })}{' '}
          {exhausted?.expected && exhausted.earliest && t('goneEarliest', { date: i18n.date(exhausted.earliest) })}{' '}
          {exhausted?.expected && exhausted.latest && t('goneLatest', { date: i18n.date(exhausted.latest) })}
        </p>
      )}
      <p class="minor">{t('forecastOf', { asOf: i18n.dateTime(forecast.as_of) })}</p>
    </>
  );
}

/** A forecast has no thousandths. */
const round = (credits: number) => (credits >= 100 ? Math.round(credits) : Math.round(credits * 10) / 10);

/** Whole days' use from the period's start on, adding up, ending in what is used now. */
function line(forecast: Forecast, now: Now, clock: number, zone: number): [number, number][] {
  const start = Date.parse(now.period_start);
  const points: [number, number][] = [[start, 0]];
  let sum = 0;
  for (const { date, credits } of forecast.days) {
    // A day ends 24 h after it began, but where clocks change.
    const end = Date.parse(`${date}T00:00:00Z`) + 86_400_000 + zone;
    if (end <= start || end >= clock) continue;
    sum += credits;
    points.push([end, Math.min(sum, now.used_credits)]);
  }
  points.push([Math.max(start, clock), now.used_credits]);
  return points;
}

/**
 * How far midnight of the zone in which a period starts is from that of UTC; periods start at a midnight as a rule. A user's
 * days are those of that zone, a team's are UTC's.
 */
function zoneOf(start: number): number {
  const past = start % 86_400_000;
  return past > 43_200_000 ? past - 86_400_000 : past;
}

const HEIGHT = 220;
const INSET = { left: 52, right: 12, top: 12, bottom: 26 };

function Chart({ now, forecast, clock, zone }: { now: Now; forecast: Forecast; clock: number; zone: number }) {
  const i18n = useI18n<UsageKey>();
  const { t } = i18n;
  const place = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(640);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.floor(entry!.contentRect.width))));
    watch.observe(place.current!);
    return () => watch.disconnect();
  }, []);
  const start = Date.parse(now.period_start);
  const end = Date.parse(now.resets_at);
  const at = Math.min(end, Math.max(start, clock));
  const allowance = forecast.allowance_credits ?? now.limit_credits;
  const foretold = forecast.answer === 'forecast' ? forecast.used_at_end : undefined;
  const most = Math.max(allowance ?? 0, now.used_credits, foretold?.high ?? 0, 1) * 1.06;
  const x = (time: number) => INSET.left + ((time - start) / (end - start)) * (width - INSET.left - INSET.right);
  const y = (credits: number) => HEIGHT - INSET.bottom - (credits / most) * (HEIGHT - INSET.top - INSET.bottom);
  const points = (list: readonly (readonly [number, number])[]) => list.map(([time, credits]) => `${x(time).toFixed(1)},${y(credits).toFixed(1)}`).join(' ');
  const step = niceStep(most / 4);
  const ticks = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
  const days = Math.round((end - start) / 86_400_000);
  // The first date stands at its day, the others around theirs.
  const every = Math.max(1, Math.ceil(days / ((width - INSET.left - INSET.right) / 96)));
  const dates = Array.from({ length: Math.floor((days - 1) / every) + 1 }, (_, i) => start + i * every * 86_400_000);
  const label = new Intl.DateTimeFormat(i18n.region, { day: 'numeric', month: 'short' });
  return (
    <div class="pace" ref={place}>
      <svg width={width} height={HEIGHT} role="img" aria-label={t('chart', { used: i18n.credits(now.used_credits), date: i18n.date(clock) })}>
        {ticks.map((tick) => (
          <g key={tick}>
            <line class="grid" x1={INSET.left} x2={width - INSET.right} y1={y(tick)} y2={y(tick)} />
            <text x={INSET.left - 6} y={y(tick) + 4} text-anchor="end">{i18n.number(tick)}</text>
          </g>
        ))}
        {dates.map((date) => (
          <text key={date} x={x(date)} y={HEIGHT - 6} text-anchor={date === start ? 'start' : 'middle'}>{label.format(date)}</text>
        ))}
        {allowance !== undefined && <polyline class="even" points={points([[start, 0], [end, allowance]])} />}
        {allowance !== undefined && <line class="limit" x1={x(start)} x2={x(end)} y1={y(allowance)} y2={y(allowance)} />}
        {foretold && <polygon class="range" points={points([[at, now.used_credits], [end, foretold.high], [end, foretold.low]])} />}
        {foretold && <polyline class="foretold" points={points([[at, now.used_credits], [end, foretold.expected]])} />}
        <polyline class="used" points={points(line(forecast, now, at, zone))} />
        <circle class="now" cx={x(at)} cy={y(now.used_credits)} r={4} />
      </svg>
      <ul class="legend">
        <li class="used">{t('legend.used')}</li>
        {foretold && <li class="foretold">{t('legend.foretold')}</li>}
        {allowance !== undefined && <li class="even">{t('legend.even')}</li>}
        {allowance !== undefined && <li class="limit">{t('legend.limit')}</li>}
      </ul>
    </div>
  );
}

/** 1, 2 or 5 times a power of ten, at least so much. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return ([1, 2, 5, 10].find((n) => n * power >= least) ?? 10) * power;
}
