// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The console: what whoever runs the service sees and does.

import './console.css';
import { Account } from '../lib/account';
import { Keyboard, useKeys } from '../lib/keys';
import { show, useLocale, useSession } from '../lib/page';
import { useParams } from '../lib/params';
import { Languages, SignIn } from '../lib/parts';
import { Link, match, Router } from '../lib/router';
import { texts, useI18n } from './i18n';
import { pages } from './pages';

const base = '/console';
const at = (path: string) => (path ? `${base}/${path}` : base);

function Missing() {
  const { t } = useI18n();
  return (
    <>
      <h1>{t('notFound')}</h1>
      <p><Link href={base}>{t('goBack')}</Link></p>
    </>
  );
}

function Console() {
  const { t } = useI18n();
  const params = useParams();
  const session = useSession();
  const [locale, choose] = useLocale();
  const path = params.path.value;
  useKeys(
    pages.flatMap(({ path, name, key }) =>
      name && key ? [{ key: `g ${key}`, what: t(name), run: () => params.go(at(path)) }] : []),
    [locale],
  );
  return (
    <>
      <a class="skip button" href="#content">{t('skip')}</a>
      <header class="top">
        <Link href={base} class="brand">{t('console')}</Link>
        <nav class="pages" aria-label={t('pages')}>
          {session && pages.flatMap((page) => page.name
            ? [<Link key={page.path} href={at(page.path)} current={page.path ? `${path}/`.startsWith(`${at(page.path)}/`) : match('', path.slice(base.length)) !== null}>{t(page.name)}</Link>]
            : [])}
        </nav>
        <div class="who">
          <Languages locale={locale} choose={choose} />
          {session && <Account name={session.username} />}
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {session
          ? <Router base={base} routes={pages} missing={Missing} />
          : <><header><h1>{t('console')}</h1></header><SignIn /></>}
      </main>
      <Keyboard />
    </>
  );
}

show(Console, texts);
