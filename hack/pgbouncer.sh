#!/bin/sh
# pgbouncer.sh: print the path of a pgbouncer: PGBOUNCER, the one on PATH, or the distribution's, installed as root or else
# unpacked into the cache.
set -eu

if [ -n "${PGBOUNCER:-}" ]; then
	[ -x "$PGBOUNCER" ] || { echo "pgbouncer.sh: PGBOUNCER=$PGBOUNCER is no program" >&2; exit 1; }
	echo "$PGBOUNCER"
	exit
fi
PATH=$PATH:/usr/sbin
if command -v pgbouncer; then
	exit
fi
if command -v apt-get >/dev/null; then
	if [ "$(id -u)" = 0 ]; then
		echo "pgbouncer.sh: installing pgbouncer with apt-get (once)" >&2
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends pgbouncer; } >&2 || true
		command -v pgbouncer && exit
	else
		cache=${XDG_CACHE_HOME:-$HOME/.cache}/usage-operator/pgbouncer
		program=$cache/usr/sbin/pgbouncer
		if ! [ -x "$program" ]; then
			echo "pgbouncer.sh: unpacking pgbouncer into $cache (once)" >&2
			mkdir -p "$cache"
			# Its library for DNS is the only one that machines with PostgreSQL may lack.
			(cd "$cache" && apt-get download pgbouncer libc-ares2 libevent-2.1-7 && for f in ./*.deb; do dpkg -x "$f" .; done) >&2 || true
		fi
		if [ -x "$program" ]; then
			# Where it finds the libraries that came with it.
			libs=$(dirname "$(find "$cache/usr/lib" -name 'libcares.so.2' -print -quit)")
			printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libs" "$program" >"$cache/pgbouncer"
			chmod +x "$cache/pgbouncer"
			echo "$cache/pgbouncer"
			exit
		fi
	fi
fi
echo "pgbouncer.sh: there is no pgbouncer: install it (Debian, Ubuntu: apt-get install pgbouncer; Fedora: dnf install pgbouncer; macOS: brew install pgbouncer) or name one in PGBOUNCER" >&2
exit 1
