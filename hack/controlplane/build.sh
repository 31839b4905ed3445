#!/bin/sh
# build.sh: print the folder that holds etcd, kube-apiserver, kubectl, kube-controller-manager, kube-scheduler and kwok.
#
# The standard download (setup-envtest) is asked first; it brings the first three. What it does not bring, or all of them
# where it cannot be reached, is built from the modules pinned in this folder and in ../kwok. The result is cached per
# user under a hash of those pins, so only the first call takes minutes. Progress goes to standard error, the folder's
# name alone to standard output.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binaries="etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kwok"
# The same flags for every binary, so that the packages they share are compiled once.
flags="-buildvcs=false -mod=readonly -trimpath -tags=selinux,notest,grpcnotrace"

say() { echo "control plane: $*" >&2; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

version=$(sed -n '/^[[:space:]]*k8s.io\/kubernetes v/{s/.*\(v[0-9.]*\).*/\1/p;q}' "$here/go.mod")
key=$({ echo "$flags"; cat "$here/go.mod" "$here/go.sum" "$here/../kwok/go.mod" "$here/../kwok/go.sum"; } | sha256 | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/usage-operator/controlplane
dir=$cache/$version-$(go env GOARCH)-$key
if [ -e "$dir/.complete" ]; then echo "$dir"; exit 0; fi

mkdir -p "$dir"
# Two first runs at once (make test beside make demo) would build everything twice: the second one waits instead.
exec 9>"$cache/.lock"
if command -v flock >/dev/null && ! flock -n 9; then
  say "another build is under way, waiting for it"
  flock 9
fi
if [ -e "$dir/.complete" ]; then echo "$dir"; exit 0; fi
started=$(date +%s)

say "asking for the standard download of Kubernetes ${version#v} (setup-envtest)"
if std=$(GOFLAGS='' GOWORK=off go -C "$here/../tools" tool setup-envtest use "${version#v}" -p path 2>"$dir/download.log"); then
  for b in etcd kube-apiserver kubectl; do
    # By way of another name, so that a copy that was interrupted is not taken for a binary.
    cp "$std/$b" "$dir/$b.tmp"
    chmod 755 "$dir/$b.tmp"
    mv "$dir/$b.tmp" "$dir/$b"
  done
  say "downloaded"
else
  say "not to be had here ($(tail -n 1 "$dir/download.log" | cut -c 1-120)...): building from pinned modules instead"
fi

major=$(echo "${version#v}" | cut -d . -f 1)
minor=$(echo "${version#v}" | cut -d . -f 2)
ld="-s -w"
for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  ld="$ld -X $pkg.gitVersion=$version -X $pkg.gitMajor=$major -X $pkg.gitMinor=$minor -X $pkg.gitTreeState=clean"
done
n=0
total=$(echo "$binaries" | wc -w | tr -d ' ')
for b in $binaries; do
  n=$((n + 1))
  [ ! -x "$dir/$b" ] || continue
  say "[$n/$total] building $b (first time only; all of them take 5 to 10 minutes on two cores)"
  t=$(date +%s)
  case $b in
    etcd) mod=$here; pkg=go.etcd.io/etcd/server/v3 ;;
    kwok) mod=$here/../kwok; pkg=sigs.k8s.io/kwok/cmd/kwok ;;
    *) mod=$here; pkg=k8s.io/kubernetes/cmd/$b ;;
  esac
  # shellcheck disable=SC2086 # the flags are several words
  CGO_ENABLED=0 GOFLAGS='' GOWORK=off go -C "$mod" build $flags -ldflags "$ld" -o "$dir/$b.tmp" "$pkg" >&2
  mv "$dir/$b.tmp" "$dir/$b"
  say "[$n/$total] $b done in $(($(date +%s) - t)) s"
done
touch "$dir/.complete"
say "ready after $(($(date +%s) - started)) s: $dir"
echo "$dir"
