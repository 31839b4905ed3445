// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Alerts on their way to endpoints: what has not arrived, why, and sending it again.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { Act } from '../act';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Asked, Bar, Choice, Long, teamAt } from '../parts';

const states = ['dead', 'waiting', 'delivered'] as const;

const failure = (d: Schemas['Delivery']) => [d.last_status, d.last_error].filter(Boolean).join(' ');

export function Deliveries() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [asked] = useParam('state');
  const state = states.find((s) => s === asked);
  const [team] = useParam('team');
  const [endpoint] = useParam('endpoint');
  const list = useList(`deliveries/${state}/${team}/${endpoint}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/deliveries', {
      params: { query: { limit: 50, ...(state ? { state } : {}), ...(team ? { team } : {}), ...(endpoint ? { endpoint } : {}), ...cursor } }, signal,
    })));
  return (
    <>
      <header><h1>{t('deliveries')}</h1></header>
      <Bar>
        <Choice name="state" title={t('state')} options={[['', t('any')], ...states.map((s) => [s, i18n.code('delivery', s)] as const)]} />
        <Asked name="endpoint" title={t('endpoint')} />
        <Asked name="team" title={t('team')} />
      </Bar>
      {list.error && <Trouble error={list.error} again={list.reload} />}
      {!list.error && (
        <Table<Schemas['Delivery']>
          stacks caption={t('deliveries')} file="deliveries" rows={list.pages?.flatMap((page) => page.deliveries)} rowKey={(d) => d.id} more={list.more}
          columns={[
            { key: 'at', title: t('time'), value: (d) => d.created_at, show: (d) => i18n.dateTime(d.created_at) },
            { key: 'endpoint', title: t('endpoint'), heads: true, value: (d) => d.endpoint },
            {
              key: 'state', title: t('state'), value: (d) => d.state,
              show: (d) => (
                <>
                  <span class={d.state === 'dead' ? 'bad' : ''}>{i18n.code('delivery', d.state)}</span>
                  {d.next_attempt_at && <small>{t('triedAgain', { time: i18n.dateTime(d.next_attempt_at) })}</small>}
                </>
              ),
            },
            {
              key: 'act', title: t('act'), value: () => '',
              show: (d) => d.state !== 'waiting' && (
                <Act
                  name={t('resend')} on={`${d.endpoint}, ${d.kind}`} what={t('resendWhat', { endpoint: d.endpoint })} done={list.reload}
                  fields={[{ name: 'reason', title: t('why') }]}
                  call={({ reason }) => ({ method: 'POST', path: `/api/v1/deliveries/${d.id}/resend`, body: { reason } })}
                />
              ),
            },
            { key: 'attempts', title: t('attempts'), end: true, value: (d) => d.attempts },
            { key: 'why', title: t('lastError'), value: (d) => failure(d), show: (d) => <Long>{failure(d)}</Long> },
            { key: 'team', title: t('team'), value: (d) => d.team, show: (d) => d.team && <Link href={teamAt(d.team)}>{d.team}</Link> },
            { key: 'kind', title: t('kind'), value: (d) => d.kind },
            { key: 'next', title: t('nextAttempt'), value: (d) => d.next_attempt_at, taken: true },
            { key: 'by', title: t('resentBy'), value: (d) => d.resent_by, taken: true },
            { key: 'id', title: t('id'), value: (d) => d.id, taken: true },
          ]}
        />
      )}
    </>
  );
}
