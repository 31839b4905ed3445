// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// All users, found by how their ids begin.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { Act } from '../act';
import { useI18n } from '../i18n';
import { useList } from '../list';
import { teamAt, UserLink } from '../parts';

type User = Schemas['User'];

export function Users() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [prefix] = useParam('q');
  const users = useList(`users/${prefix}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/users', {
      params: { query: { limit: 50, ...(prefix ? { prefix } : {}), ...cursor } }, signal,
    })));
  return (
    <>
      <header>
        <h1>{t('users')}</h1>
        <Act
          name={t('register')} what={t('registerWhat')} done={users.reload}
          fields={[{ name: 'id', title: t('user'), pattern: '[A-Za-z0-9]([A-Za-z0-9._\\-]{0,61}[A-Za-z0-9])?' }, { name: 'plan', title: t('plan'), optional: true }, { name: 'reason', title: t('why') }]}
          call={({ id, plan, reason }) => ({ method: 'POST', path: '/api/v1/users', body: { user_id: id, ...(plan ? { plan } : {}), reason } })}
        />
      </header>
      {users.error && <Trouble error={users.error} again={users.reload} />}
      {!users.error && (
        <Table<User>
          caption={t('usersPrefix')} file="users" filter="remote" rowKey={(user) => user.user_id}
          rows={users.pages?.flatMap((page) => page.users)} more={users.more}
          columns={[
            { key: 'user', title: t('user'), heads: true, value: (u) => u.user_id, show: (u) => <UserLink id={u.user_id} /> },
            { key: 'plan', title: t('plan'), value: (u) => u.plan },
            { key: 'team', title: t('team'), value: (u) => u.team, show: (u) => u.team && <Link href={teamAt(u.team)}>{u.team}</Link> },
            { key: 'suspended', title: t('suspended'), value: (u) => (u.suspended ? 1 : 0), show: (u) => (u.suspended ? <strong class="bad">{t('yes')}</strong> : '') },
            { key: 'declared', title: t('declaredBy'), value: (u) => u.declared_by },
            { key: 'zone', title: t('zone'), value: (u) => u.time_zone },
            { key: 'since', title: t('since'), value: (u) => u.registered_at, show: (u) => i18n.date(u.registered_at) },
          ]}
        />
      )}
    </>
  );
}
