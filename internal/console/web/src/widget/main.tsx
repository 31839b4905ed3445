// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// <usage-panel>: the usage page's parts on a page of somebody else's. That page gives it a function that returns a portal
// token; the token is asked for when it is needed, sent in a header and kept nowhere.
//
//   <script src="https://usage.example.com/widget.js" defer></script>
//   <usage-panel lang="zh-Hant-HK" upgrade-url="/billing"></usage-panel>
//   document.querySelector('usage-panel').token = () => fetch('/my/portal-token').then((r) => r.text());

import { render } from 'preact';
import { en, zhHantHK } from '../i18n';
import { makeApi, type TokenSource } from '../lib/api';
import { ApiContext } from '../lib/api-context';
import { choose, I18nContext, makeI18n } from '../lib/i18n';
import { memoryParams, ParamsContext } from '../lib/params';
import { Panel, parts, type Part } from '../usage/panel';
import css from './widget.css';

// Where this script is from is where the API is. A deferred script knows that while it runs for the first time only.
const home = document.currentScript instanceof HTMLScriptElement ? new URL(document.currentScript.src).origin : '';

// A constructed style sheet is no inline style: the host's style-src need not allow anything for it.
const sheet = new CSSStyleSheet();
sheet.replaceSync(css);

class UsagePanel extends HTMLElement {
  static readonly observedAttributes = ['lang', 'show', 'upgrade-url', 'api', 'heading'];

  readonly #root = this.attachShadow({ mode: 'open' });
  #token: TokenSource | undefined;
  #shown: HTMLElement | undefined;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [sheet];
    // A page may have given the function before this script had come.
    if (Object.hasOwn(this, 'token')) {
      const early = (this as { token?: TokenSource }).token;
      delete (this as { token?: TokenSource }).token;
      this.#token = early;
    }
  }

  /** Gives out a portal token, each time that one is needed. */
  set token(source: TokenSource | undefined) {
    if (source !== undefined && typeof source !== 'function') {
      throw new TypeError('usage-panel: token must be a function that returns a portal token or a promise of one');
    }
    this.#token = source;
    this.#close();
    this.#draw();
  }

  get token(): TokenSource | undefined {
    return this.#token;
  }

  connectedCallback(): void {
    this.#draw();
  }

  disconnectedCallback(): void {
    this.#close();
  }

  attributeChangedCallback(name: string): void {
    // Another service is another stream; all else is words.
    if (name === 'api') this.#close();
    this.#draw();
  }

  #close(): void {
    if (this.#shown) {
      render(null, this.#shown);
      this.#shown.remove();
      this.#shown = undefined;
    }
  }

  #draw(): void {
    if (!this.isConnected || !this.#token) return;
    if (!this.#shown) {
      this.#shown = document.createElement('div');
      this.#shown.className = 'widget';
      this.#root.append(this.#shown);
      // The same for all that is drawn into it: a new one would begin anew.
      this.#api = makeApi(this.getAttribute('api') ?? home, this.#token);
    }
    const wanted = [this.closest<HTMLElement>('[lang]')?.lang ?? '', ...navigator.languages].filter(Boolean);
    const i18n = makeI18n(choose(wanted), { en: en.usage, 'zh-Hant-HK': zhHantHK.usage });
    const show = this.getAttribute('show')?.split(/[\s,]+/);
    render(
      <ApiContext.Provider value={this.#api!}>
        <ParamsContext.Provider value={this.#params}>
          <I18nContext.Provider value={i18n as never}>
            <Panel
              show={show ? parts.filter((part: Part) => show.includes(part)) : parts}
              upgrade={upgradeOf(this.getAttribute('upgrade-url'))}
              title={this.getAttribute('heading') === 'none' ? undefined : 'h2'}
            />
          </I18nContext.Provider>
        </ParamsContext.Provider>
      </ApiContext.Provider>,
      this.#shown,
    );
  }

  #api: ReturnType<typeof makeApi> | undefined;
  readonly #params = memoryParams();
}

/** A link of the web, of the host's or elsewhere; no script. */
function upgradeOf(text: string | null): string | undefined {
  if (!text) return undefined;
  try {
    const url = new URL(text, document.baseURI);
    return ['https:', 'http:'].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

if (!customElements.get('usage-panel')) customElements.define('usage-panel', UsagePanel);
