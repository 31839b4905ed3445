#!/usr/bin/env bash
# postgres.sh IMAGE: build an image of PostgreSQL from Debian's packages, for development clusters where no registry is in
# reach. It takes the settings of the official image that config/postgres uses (POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB,
# PGDATA) and runs as the same user. Needs docker and apt, no root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1

for program in docker apt-get dpkg-deb ldd; do
  command -v $program >/dev/null || { echo "postgres-image: $program is not installed" >&2; exit 1; }
done
version=$(apt-cache depends postgresql | awk '/Depends: postgresql-[0-9]+$/ && !version {sub(/.*-/, ""); version = $0} END {print version}')
[ -n "$version" ] || { echo "postgres-image: apt knows no package postgresql; run apt-get update" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{debs/partial,all,root/{etc,tmp,var/lib/postgresql/data,var/run/postgresql}}
# Resolved as if nothing were installed, so that it does not matter what this machine has.
: >"$work/status"
chmod 777 "$work" "$work/debs" "$work/debs/partial"
apt-get -qq -o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/debs" -o Debug::NoLocking=1 \
  --download-only --no-install-recommends -y install "postgresql-$version" tzdata dash coreutils >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; echo "postgres-image: apt-get could not download postgresql-$version" >&2; exit 1; }
for deb in "$work"/debs/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "$work/all" -x --no-same-owner --exclude './usr/share/doc/*'; done
# A merged /usr is made when a system is installed, not by a package.
for dir in bin sbin lib lib64; do
  if [ -d "$work/all/$dir" ] && [ ! -L "$work/all/$dir" ]; then
    mkdir -p "$work/all/usr/$dir"
    cp -a "$work/all/$dir/." "$work/all/usr/$dir/"
    rm -rf "${work:?}/all/$dir"
  fi
  ln -sfn "usr/$dir" "$work/all/$dir"
  ln -sfn "usr/$dir" "$work/root/$dir"
done

# The programs, what they are linked with, and what the server loads or reads at run time.
cd "$work/all"
bin=usr/lib/postgresql/$version/bin
files=(usr/bin/dash usr/bin/{cat,chmod,id,mkdir,rm,sleep} "$bin"/{postgres,initdb,pg_ctl,pg_isready,psql,pg_controldata})
modules=("usr/lib/postgresql/$version/lib"/{plpgsql,dict_snowball,libpqwalreceiver,utf8_and_*,*_and_*}.so)
libraries=$(for file in "${files[@]}" "${modules[@]}"; do
  LD_LIBRARY_PATH=$PWD/usr/lib/$(uname -m)-linux-gnu ldd "$file" 2>/dev/null | sed -n 's#.*=> \(/[^ ]*\) .*#\1#p; s#^[[:space:]]*\(/[^ ]*\) .*#\1#p'
done | sed "s#^$PWD/##; s#^/lib#usr/lib#; s#^/##" | sort -u)
# shellcheck disable=SC2086 # one word each
tar -ch "${files[@]}" $(printf '%s\n' "${modules[@]}" | sort -u) $libraries "usr/share/postgresql/$version" usr/share/zoneinfo usr/lib/locale |
  tar -C "$work/root" -x
cd "$work/root"
ln -sf dash usr/bin/sh
for program in "$work/root/$bin"/*; do ln -sf "/$bin/$(basename "$program")" usr/bin/; done
echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >etc/passwd
echo 'postgres:x:999:' >etc/group
chmod 1777 tmp
install -m 755 "$here/postgres-entrypoint.sh" entrypoint.sh
cat >"$work/Dockerfile" <<END
FROM scratch
COPY --chown=999:999 . /
ENV PATH=/usr/bin LANG=C.UTF-8
USER 999:999
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["/entrypoint.sh"]
END
docker build --tag "$image" --file "$work/Dockerfile" "$work/root" >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; echo "postgres-image: docker build failed, see above" >&2; exit 1; }
echo "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}'), PostgreSQL $version"
