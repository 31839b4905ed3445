// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// 繁體中文（香港）: the texts that all pages share, and those of the usage page and the widget.

import type { common as commonEn, usage as usageEn } from './en';

// Chinese has one form for all numbers.
type Texts<T> = Record<keyof T, string>;

export const common: Texts<typeof commonEn> = {
  language: '語言',
  signIn: '登入',
  signOut: '登出',
  signedInAs: '已登入：{user}',
  signInFirst: '請先登入，才可檢視此頁。',
  notAllowed: '你沒有檢視此內容的權限。',
  notFound: '這裡沒有內容。',
  goBack: '返回首頁',
  failed: '無法讀取：{why}',
  failedOffline: '服務沒有回應。',
  again: '重試',
  loading: '讀取中……',
  skip: '跳至內容',
  keys: '快捷鍵',
  'keys.help': '顯示快捷鍵',
  'keys.filter': '前往篩選欄',
  'keys.rows': '在各行、連結與按鈕之間移動',
  'keys.close': '關閉',
  'state.live': '即時',
  'state.connecting': '連線中……',
  'state.offline': '離線',
  'state.offlineSince': '離線：以下為 {time} 的資料，正在重試。',
  time: '時間',
  filter: '篩選',
  filterOf: '篩選：{what}',
  clear: '清除',
  copyCSV: '複製為 CSV',
  saveCSV: '下載 CSV',
  copied: '已複製',
  more: '顯示更多',
  nothing: '暫無資料',
  nothingMatches: '沒有符合篩選的資料',
  'rows.one': '{n} 行',
  'rows.other': '{n} 行',
  'rowsOf.one': '{all} 行中的 {n} 行',
  'rowsOf.other': '{all} 行中的 {n} 行',
  sortBy: '按{what}排序',
};

export const usage: Texts<typeof usageEn> = {
  title: '用量',
};
