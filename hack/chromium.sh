#!/bin/sh
# chromium.sh: print the path of a Chromium: CHROMIUM, the one on PATH, or Debian's, installed as root, with a font for Chinese.
set -eu

if [ -n "${CHROMIUM:-}" ]; then
	[ -x "$CHROMIUM" ] || { echo "chromium.sh: CHROMIUM=$CHROMIUM is no program" >&2; exit 1; }
	echo "$CHROMIUM"
	exit
fi
chinese() { ! command -v fc-list >/dev/null || [ -n "$(fc-list :lang=zh-hk family)" ]; }
if ! { command -v chromium >/dev/null && chinese; } && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "chromium.sh: installing chromium and fonts-noto-cjk with apt-get (once)" >&2
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium fontconfig fonts-noto-cjk; } >&2 || true
fi
if chinese && { command -v chromium || command -v chromium-browser || command -v google-chrome; }; then
	exit
fi
echo "chromium.sh: there is no Chromium, or no font for Chinese: install them (Debian: apt-get install chromium fonts-noto-cjk) or name a Chromium in CHROMIUM" >&2
exit 1
