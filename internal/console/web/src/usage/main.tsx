// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The customers' page: one's own usage, or with ?team= a team's, for who runs it.

import './page.css';
import { en, zhHantHK, type UsageKey } from '../i18n';
import { Account } from '../lib/account';
import { useI18n } from '../lib/i18n';
import { Keyboard, useKeys } from '../lib/keys';
import { show, useLocale, useSession } from '../lib/page';
import { useParams } from '../lib/params';
import { Languages, SignIn } from '../lib/parts';
import { Link } from '../lib/router';
import { Panel, parts } from './panel';
import { TeamPage } from './teams';

function Usage() {
  const { t } = useI18n<UsageKey>();
  const session = useSession();
  const params = useParams();
  const [locale, choose] = useLocale();
  const team = params.query.value.get('team');
  const user = params.query.value.get('user') ?? undefined;
  useKeys([{ key: 'g u', what: t('myUsage'), run: () => params.go('/usage') }], [locale]);
  return (
    <>
      <a class="skip button" href="#content">{t('skip')}</a>
      <header class="top">
        <Link href="/usage" class="brand">{t('title')}</Link>
        <div class="who">
          <Languages locale={locale} choose={choose} />
          {session && <Account name={session.user || session.username} />}
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {!session && <><header><h1>{t('title')}</h1></header><SignIn /></>}
        {session && team && <TeamPage key={team} name={team} />}
        {session && !team && <Panel key={user ?? ''} user={user} show={parts} title="h1" upgrade={session.upgrade_url} />}
      </main>
      <Keyboard />
    </>
  );
}

show(Usage, { en: en.usage, 'zh-Hant-HK': zhHantHK.usage });
