// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Who has signed in, and what ends that.

import { useEffect, useRef } from 'preact/hooks';
import { useI18n } from './i18n';
import { signOut } from './session';

export function Account({ name }: { name: string }) {
  const { t } = useI18n();
  const menu = useRef<HTMLDetailsElement>(null);
  // As any menu it goes when one looks elsewhere.
  useEffect(() => {
    const away = (event: Event) => {
      if (menu.current && !menu.current.contains(event.target as Node)) menu.current.open = false;
    };
    const leave = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || !menu.current?.open) return;
      menu.current.open = false;
      menu.current.querySelector('summary')!.focus();
    };
    addEventListener('pointerdown', away);
    addEventListener('focusin', away);
    addEventListener('keydown', leave);
    return () => {
      removeEventListener('pointerdown', away);
      removeEventListener('focusin', away);
      removeEventListener('keydown', leave);
    };
  }, []);
  return (
    <details class="account" ref={menu}>
      <summary>{t('signedInAs', { user: name })}</summary>
      <div class="choices">
        <button type="button" class="quiet" onClick={() => void signOut()}>{t('signOut')}</button>
        <button type="button" class="quiet" onClick={() => void signOut(true)}>{t('signOutEverywhere')}</button>
      </div>
    </details>
  );
}
