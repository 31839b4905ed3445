#!/usr/bin/env bash
# build.sh IMAGE BASE PROGRAM...: build the container image that holds the programs. No registry is asked for BASE=scratch.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=$1 base=$2
shift 2

command -v docker >/dev/null || { echo "image: docker is not installed" >&2; exit 1; }
folder=bin/image
rm -rf $folder
mkdir -p $folder/etc/ssl/certs
version=$(git describe --tags --always --dirty) revision=$(git rev-parse HEAD) created=$(git log -1 --format=%cI)
package=$(go list -m)/internal/version
for program in "$@"; do
  CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X $package.version=$version -X $package.commit=$revision -X $package.date=$created" -o "$folder/$program" "./cmd/$program"
done
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -s $bundle ]; then cp $bundle $folder/etc/ssl/certs/ca-certificates.crt; break; fi
done
[ -s $folder/etc/ssl/certs/ca-certificates.crt ] || {
  echo "image: this machine has no bundle of CA certificates; install ca-certificates" >&2
  exit 1
}
docker build --tag "$image" --file Dockerfile --build-arg BASE="$base" --build-arg VERSION="$version" \
  --build-arg REVISION="$revision" --build-arg CREATED="$created" $folder >bin/image.log 2>&1 || {
  cat bin/image.log >&2
  echo "image: docker build failed, see above" >&2
  exit 1
}
echo "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}'), $version of $created"
