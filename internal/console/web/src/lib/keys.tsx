// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Keys of a page: `?` shows them all, `/` goes to the filter. Only for pages of our own; a widget leaves keys to its host.

import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { useI18n } from './i18n';

export interface Key {
  /** As KeyboardEvent.key has it, or two of them for one after the other, such as 'g u'. */
  key: string;
  what: string;
  run(): void;
}

const keys = signal<readonly Key[]>([]);

/** Offers keys for as long as the component is shown. */
export function useKeys(offered: readonly Key[], deps: readonly unknown[]): void {
  useEffect(() => {
    keys.value = [...keys.value, ...offered];
    return () => {
      keys.value = keys.value.filter((key) => !offered.includes(key));
    };
  }, deps);
}

/** Whether what is typed now is a text. */
function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

export function Keyboard() {
  const { t } = useI18n();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    let before = '';
    const press = (event: KeyboardEvent) => {
      // Out of a field, so that keys are the page's again; a search that has a text loses that first, by the browser.
      const field = event.target;
      if (event.key === 'Escape' && field instanceof HTMLInputElement && field.dataset.filter !== undefined && !(field.type === 'search' && field.value)) {
        document.querySelector<HTMLElement>('main')?.focus({ preventScroll: true });
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector('dialog[open]')) return;
      const both = `${before} ${event.key}`;
      const key = keys.value.find((k) => k.key === both) ?? keys.value.find((k) => k.key === event.key);
      before = event.key;
      if (event.key === '?') {
        event.preventDefault();
        dialog.current?.showModal();
      } else if (event.key === '/') {
        const filter = document.querySelector<HTMLElement>('main [data-filter]');
        if (filter) {
          event.preventDefault();
          filter.focus();
        }
      } else if (key) {
        event.preventDefault();
        before = '';
        key.run();
      }
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
  const fixed = [
    ['/', t('keys.filter')], ['↑ ↓', t('keys.rows')], ['?', t('keys.help')], ['Esc', t('keys.leave')],
  ] as const;
  return (
    <dialog ref={dialog} class="keys" aria-labelledby="keys-title">
      <form method="dialog">
        <h2 id="keys-title">{t('keys')}</h2>
        <dl>
          {[...keys.value.map((k) => [k.key, k.what] as const), ...fixed].map(([key, what]) => (
            <div key={key}>
              <dt>{key.split(' ').map((part) => <kbd key={part}>{part}</kbd>)}</dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <button>{t('keys.close')}</button>
      </form>
    </dialog>
  );
}
