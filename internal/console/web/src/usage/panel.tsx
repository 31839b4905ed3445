// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Everything about one user's usage: the page shows it, and so does the widget.

import { useI18n } from '../lib/i18n';
import { LiveMark, Trouble } from '../lib/parts';
import type { UsageKey } from '../i18n';
import { Alerts } from './alerts';
import { Charges } from './charges';
import { Largest } from './largest';
import { Pace } from './pace';
import { Plans } from './plans';
import { Summary } from './summary';
import { TeamShare } from './teams';
import { useUsage } from './use-usage';
import { Waiting } from './waiting';

/** The parts, in the order in which they are shown. */
export const parts = ['summary', 'alerts', 'pace', 'waiting', 'team', 'plans', 'charges', 'largest'] as const;
export type Part = (typeof parts)[number];

export function Panel(props: {
  user?: string | undefined;
  show: readonly Part[];
  upgrade?: string | undefined;
  /** A page has its own; in a widget it is a heading among the host's. */
  title: 'h1' | 'h2' | undefined;
}) {
  const { t, time } = useI18n<UsageKey>();
  const usage = useUsage(props.user);
  const { standing: now, state, refused } = usage;
  const Title = props.title;
  const has = (part: Part) => props.show.includes(part);
  return (
    <>
      <header>
        {Title && <Title>{t('title')}</Title>}
        {!refused && <LiveMark state={state} />}
      </header>
      {refused && <Trouble error={refused} />}
      {!refused && state === 'offline' && now && (
        <p class="notice bad" data-offline>{t('state.offlineSince', { time: time(now.as_of) })}</p>
      )}
      {!refused && !now && (state === 'offline' ? <p class="notice bad" data-offline>{t('failedOffline')}</p> : <p class="minor">{t('loading')}</p>)}
      {now && !refused && (
        <div class={`panels ${state === 'offline' ? 'old' : ''}`}>
          <div class="column">
            {has('summary') && <Summary usage={usage} />}
            {has('alerts') && <Alerts of={now.user_id} news={usage.news} path="user" upgrade={now.payer ? undefined : props.upgrade} />}
          </div>
          <div class="column">
            {has('pace') && !usage.turning && <Pace of={now.user_id} path="user" now={now} clock={usage.clock.now.value} />}
            {has('waiting') && <Waiting now={now} />}
          </div>
          {has('team') && <TeamShare now={now} />}
          {has('plans') && !now.payer && <Plans now={now} upgrade={props.upgrade} />}
          {has('charges') && <Charges now={now} />}
          {has('largest') && <Largest of={now.user_id} path="user" clock={usage.clock.now.value} />}
        </div>
      )}
    </>
  );
}
