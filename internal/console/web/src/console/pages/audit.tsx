// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Who has changed what, when, from what and to what.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { Asked, Bar, Choice, Day, Long, UserLink } from '../parts';

type Entry = Schemas['AuditEntry'];
interface Query { user_id?: string; actor?: string; action?: string; object_kind?: Kind; object_name?: string; since?: string; until?: string }
const kinds = ['Account', 'Admission', 'Delivery', 'NotificationEndpoint', 'PortalToken', 'UsageEvent', 'UsagePlan', 'UsageTeam'] as const;
type Kind = (typeof kinds)[number];

/** What is different between two states, a line for each member; of one alone all that it has. */
export function changes(before: unknown, after: unknown): string[] {
  const members = (of: unknown) => (typeof of === 'object' && of !== null ? (of as Record<string, unknown>) : {});
  const was = members(before);
  const is = members(after);
  const text = (value: unknown) => (value === undefined || value === null ? '–' : typeof value === 'string' ? value.replace(/(T\d\d:\d\d:\d\d)\.\d+Z$/, '$1Z') : JSON.stringify(value));
  const both = before !== undefined && before !== null && after !== undefined && after !== null;
  return [...new Set([...Object.keys(was), ...Object.keys(is)])]
    .filter((name) => text(was[name]) !== text(is[name]))
    .map((name) => (both ? `${name}: ${text(was[name])} → ${text(is[name])}` : `${name}: ${text(is[name] ?? was[name])}`));
}

export function AuditTable({ of, file }: { of: Query; file: string }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const list = useList(`audit/${JSON.stringify(of)}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/audit', { params: { query: { ...of, limit: 25, ...cursor } }, signal })));
  if (list.error) return <Trouble error={list.error} again={list.reload} />;
  return (
    <Table<Entry>
      stacks caption={t('audit')} file={file} rows={list.pages?.flatMap((page) => page.entries)} rowKey={(e) => String(e.id)} more={list.more}
      columns={[
        { key: 'at', title: t('time'), value: (e) => e.at, show: (e) => i18n.dateTime(e.at) },
        { key: 'actor', title: t('by'), value: (e) => e.actor, show: (e) => <Long>{e.actor}</Long> },
        { key: 'action', title: t('action'), heads: true, value: (e) => e.action },
        { key: 'why', title: t('why'), value: (e) => e.reason, show: (e) => <Long>{e.reason}</Long> },
        {
          key: 'changes', title: t('changes'), value: (e) => changes(e.before, e.after).join('; '),
          show: (e) => <ul class="changes long">{changes(e.before, e.after).map((line) => <li key={line}>{line}</li>)}</ul>,
        },
        { key: 'user', title: t('user'), value: (e) => e.user_id, show: (e) => e.user_id && <UserLink id={e.user_id} /> },
        { key: 'kind', title: t('object'), value: (e) => `${e.object_kind} ${e.object_name}`, show: (e) => <Long>{e.object_kind} {e.object_name}</Long> },
      ]}
    />
  );
}

export function Audit() {
  const { t } = useI18n();
  const [user] = useParam('user');
  const [actor] = useParam('actor');
  const [action] = useParam('action');
  const [kind] = useParam('kind');
  const [name] = useParam('name');
  const [since] = useParam('since');
  return (
    <>
      <header><h1>{t('audit')}</h1></header>
      <Bar>
        <Asked name="user" title={t('user')} />
        <Asked name="actor" title={t('by')} />
        <Asked name="action" title={t('action')} />
        <Choice name="kind" title={t('object')} options={[['', t('any')], ...kinds.map((k) => [k, k] as const)]} />
        <Asked name="name" title={t('objectName')} />
        <Day name="since" title={t('sinceDay')} />
      </Bar>
      <AuditTable
        file="audit"
        of={{
          ...(user ? { user_id: user } : {}), ...(actor ? { actor } : {}), ...(action ? { action } : {}),
          ...(kinds.includes(kind as Kind) ? { object_kind: kind as Kind } : {}), ...(name ? { object_name: name } : {}),
          ...(since ? { since: `${since}T00:00:00Z` } : {}),
        }}
      />
    </>
  );
}
