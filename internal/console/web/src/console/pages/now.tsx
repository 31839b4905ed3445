// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What the service does now.

import { useState } from 'preact/hooks';
import type { Schemas } from '../../lib/api';
import { Figure, LiveMark, Trouble } from '../../lib/parts';
import { Plot } from '../../lib/plot';
import { Table } from '../../lib/table';
import { useStream } from '../../lib/use-stream';
import { useI18n } from '../i18n';
import { Attention } from './attention';

type Live = Schemas['LiveCounters'];

/** Five minutes of seconds. */
const KEPT = 300;

export function Now() {
  const i18n = useI18n();
  const { t } = i18n;
  const [seconds, setSeconds] = useState<readonly Live[]>([]);
  const { state, refused } = useStream('/api/v1/live', (name, data) => {
    if (name === 'live') setSeconds((were) => [...were.slice(1 - KEPT), data as Live]);
  });
  const now = seconds.at(-1);
  const rate = (value: number) => i18n.number(value, { maximumFractionDigits: value < 10 ? 2 : 0 });
  if (refused) return <><header><h1>{t('now')}</h1></header><Trouble error={refused} /></>;
  return (
    <>
      <header>
        <h1>{t('now')}</h1>
        <LiveMark state={state} />
      </header>
      {!now && <p class="minor">{t('loading')}</p>}
      {now && (
        <div class="stack">
          <section class="card">
            <dl class="figures">
              <Figure name={t('now.running')}>{now.running === undefined ? '–' : i18n.number(now.running)}</Figure>
              <Figure name={t('now.waiting')}>{now.waiting === undefined ? '–' : i18n.number(now.waiting)}</Figure>
              {now.today && (
                <>
                  <Figure name={t('now.usesToday')}>{i18n.number(now.today.uses)}</Figure>
                  <Figure name={t('now.creditsToday')}>{i18n.credits(now.today.credits)}</Figure>
                </>
              )}
              {now.ended && (
                <Figure name={t('now.failed')} note={t('now.failedOf', { failed: now.ended.failed, ended: now.ended.ended })}>
                  {now.ended.ended === 0 ? '–' : i18n.percent(now.ended.failed / now.ended.ended)}
                </Figure>
              )}
              <Figure name={t('now.admitted')}>{rate(now.admitted)}</Figure>
              <Figure name={t('now.queued')}>{rate(now.queued)}</Figure>
              <Figure name={t('now.refused')}>{rate(now.refused)}</Figure>
              <Figure name={t('now.completed')}>{rate(now.completed)}</Figure>
              <Figure name={t('now.charged')}>{rate(now.charged_credits)}</Figure>
              <Figure name={t('now.calls')}>{i18n.number(now.in_flight)}</Figure>
              <Figure name={t('now.streams')}>{i18n.number(now.streams)}</Figure>
              <Figure name={t('now.database')}>{now.database_up ? t('now.up') : t('now.down')}</Figure>
            </dl>
          </section>
          <Attention />
          <section class="card">
            <Plot
              label={t('now.plot')}
              times={seconds.map((s) => Date.parse(s.as_of) / 1000)}
              series={[
                { name: t('now.admitted'), colour: '--accent', values: seconds.map((s) => s.admitted) },
                { name: t('now.queued'), colour: '--second', values: seconds.map((s) => s.queued) },
                { name: t('now.refused'), colour: '--bad', values: seconds.map((s) => s.refused) },
              ]}
            />
          </section>
          <section class="card">
            <h2>{t('now.refusals')}</h2>
            <Table
              caption={t('now.refusals')}
              file="refusals"
              filter="none"
              sort="-rate"
              rowKey={([reason]) => reason}
              rows={Object.entries(now.refused_by_reason)}
              columns={[
                { key: 'reason', title: t('reason'), heads: true, value: ([reason]) => reason },
                { key: 'rate', title: t('perSecond'), end: true, value: ([, n]) => n, show: ([, n]) => rate(n) },
              ]}
            />
          </section>
          <p class="minor">{t('now.replica', { replica: now.replica })}</p>
        </div>
      )}
    </>
  );
}
