// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What an operator does: a button, a dialog that asks for what it takes, and the curl that does the same.

import { useRef, useState } from 'preact/hooks';
import { problemOf, Refused } from '../lib/api';
import { useApi } from '../lib/api-context';
import { useI18n } from './i18n';

/** A call of the public API that changes something. */
export interface Call {
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  body?: Record<string, unknown>;
  /** It takes an Idempotency-Key, which stays the same until it has worked. */
  keyed?: boolean;
}

export interface Field {
  name: string;
  title: string;
  type?: 'text' | 'number' | 'datetime-local';
  optional?: boolean;
  value?: string;
  step?: string;
  pattern?: string;
  options?: readonly string[];
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The command line that makes a call; the key is made by whoever runs it. */
export function curlOf(origin: string, call: Call): string {
  const parts = [`curl -sS -X ${call.method} ${quoted(origin + call.path)}`, '-H "Authorization: Bearer $TOKEN"'];
  if (call.keyed) parts.push('-H "Idempotency-Key: $(uuidgen)"');
  if (call.body) parts.push(`-H 'Content-Type: application/json'`, `-d ${quoted(JSON.stringify(call.body))}`);
  return parts.join(' \\\n  ');
}

/** The command line that changes what a UserQuota says. */
export const kubectlOf = (object: string, spec: Record<string, unknown>): string =>
  `kubectl patch userquota ${object} --type merge \\\n  -p ${quoted(JSON.stringify({ spec }))}`;

export function Act(props: {
  name: string;
  /** Says on whom, for who hears the button alone. */
  on?: string;
  what: string;
  fields?: readonly Field[];
  call(values: Record<string, string>): Call;
  /** The UserQuota that declares what would be changed, and what that has to say instead: the service refuses the call. */
  declared?: false | { by: string; spec(values: Record<string, string>): Record<string, unknown> };
  done(): void;
}) {
  const { t } = useI18n();
  const api = useApi();
  const { declared } = props;
  // Kubernetes keeps no reasons.
  const fields = (props.fields ?? []).filter((field) => !declared || field.name !== 'reason');
  const initial = () => Object.fromEntries(fields.map((f) => [f.name, f.value ?? '']));
  const [values, setValues] = useState(initial);
  const [key, setKey] = useState('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();
  const [copied, setCopied] = useState(false);
  const [open, setOpen] = useState(false);
  const dialog = useRef<HTMLDialogElement>(null);
  const begin = () => {
    setValues(initial());
    setKey(crypto.randomUUID());
    setError(undefined);
    setCopied(false);
    setOpen(true);
    dialog.current?.showModal();
  };
  const send = async () => {
    const call = props.call(values);
    setBusy(true);
    setError(undefined);
    try {
      const headers: Record<string, string> = {};
      if (call.body) headers['Content-Type'] = 'application/json';
      if (call.keyed) headers['Idempotency-Key'] = key;
      const answer = await api.fetch(call.path, {
        method: call.method, headers, ...(call.body ? { body: JSON.stringify(call.body) } : {}),
      });
      if (!answer.ok) throw new Refused(answer.status, problemOf(await answer.json().catch(() => null)));
      dialog.current?.close();
      props.done();
    } catch (cause) {
      setError(cause instanceof Error ? cause : new Error(String(cause)));
    } finally {
      setBusy(false);
    }
  };
  const line = open ? (declared ? kubectlOf(declared.by, declared.spec(values)) : curlOf(location.origin, props.call(values))) : '';
  const command = (
    <>
      <pre class="curl" tabIndex={0}><code>{line}</code></pre>
      {navigator.clipboard && (
        <button type="button" class="quiet" onClick={() => void navigator.clipboard.writeText(line).then(() => setCopied(true), () => setCopied(false))}>
          {copied ? t('copied') : t('copy')}
        </button>
      )}
    </>
  );
  return (
    <>
      <button type="button" class="quiet" aria-label={props.on && `${props.name}: ${props.on}`} onClick={begin}>{props.name}</button>
      <dialog ref={dialog} class="act" aria-label={props.what} onClose={() => setOpen(false)}>
        {open && (
          <form
            onSubmit={(event) => {
              event.preventDefault();
              if (!declared) void send();
            }}
          >
            <h2>{props.what}</h2>
            {fields.map((field) => {
              const change = (event: { currentTarget: HTMLInputElement | HTMLSelectElement }) =>
                setValues({ ...values, [field.name]: event.currentTarget.value });
              return (
                <label key={field.name}>
                  <span>{field.title}{field.optional && <small> {t('optional')}</small>}</span>
                  {field.options
                    ? (
                      <select value={values[field.name]} onChange={change} required={!field.optional}>
                        {field.options.map((option) => <option key={option}>{option}</option>)}
                      </select>
                    )
                    : (
                      <input
                        type={(field.type ?? 'text') as 'text'} value={values[field.name]} onInput={change} required={!field.optional}
                        step={field.step} pattern={field.pattern} autocomplete="off"
                      />
                    )}
                </label>
              );
            })}
            {declared
              ? <div><p>{t('declaredThere', { name: declared.by })}</p>{command}</div>
              : <details><summary>{t('asCurl')}</summary>{command}</details>}
            {error && (
              <p class="trouble" role="alert">{error instanceof Refused ? error.message : t('failedOffline')}</p>
            )}
            <div class="ends">
              <button type="button" class="quiet" onClick={() => dialog.current?.close()}>{t('cancel')}</button>
              {!declared && <button disabled={busy}>{props.name}</button>}
            </div>
          </form>
        )}
      </dialog>
    </>
  );
}
