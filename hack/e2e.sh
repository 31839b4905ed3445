#!/usr/bin/env bash
# e2e.sh: run the end-to-end suite on a kind cluster. See docs/development.md for the environment variables.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "test-e2e: $*" >&2; exit 1; }
command -v docker >/dev/null || fail "docker is not installed; the suite runs on a kind cluster, whose nodes are containers"
docker version >/dev/null 2>&1 || fail "no Docker daemon answers; start one or set DOCKER_HOST"

kind=${KIND:-$(GOFLAGS=-mod=readonly GOWORK=off go -C hack/tools tool -n kind)}
cluster=${KIND_CLUSTER:-usage-operator-e2e}
kubectl=${KUBECTL:-$(command -v kubectl || echo "$(hack/controlplane/build.sh)/kubectl")}
step() { echo "test-e2e: $* (after $SECONDS s)" >&2; }

clusters=$("$kind" get clusters 2>/dev/null)
if grep -qx "$cluster" <<<"$clusters"; then
  step "using the cluster $cluster, which stays"
else
  step "creating the cluster $cluster"
  image=()
  [ -z "${KIND_NODE_IMAGE:-}" ] || image=(--image "$KIND_NODE_IMAGE")
  "$kind" create cluster --name "$cluster" --config test/e2e/kind.yaml --wait 3m "${image[@]}"
  # Only now it is ours to delete; what could not be created kind has taken away.
  [ -n "${KEEP:-}" ] || trap '"$kind" delete cluster --name "$cluster" >/dev/null 2>&1' EXIT
fi
mkdir -p bin/e2e
"$kind" get kubeconfig --name "$cluster" >bin/e2e/kubeconfig
chmod 600 bin/e2e/kubeconfig

step "building the images"
export IMG=usage-operator:e2e WORKER_IMG=usage-operator-worker:e2e POSTGRES_IMG=${POSTGRES_IMG:-postgres:17}
make image
if ! docker image inspect "$POSTGRES_IMG" >/dev/null 2>&1 && ! timeout 120 docker pull --quiet "$POSTGRES_IMG" >/dev/null 2>&1; then
  POSTGRES_IMG=usage-operator-postgres:e2e
  make postgres-image
fi
# What the specs' pods run: usage-run from the product's image, a stand-in for a transcription, and a recording.
mkdir -p bin/worker
cp bin/image/usage-run bin/worker/
cp internal/audio/testdata/vbr.mp3 bin/worker/tone.mp3
CGO_ENABLED=0 go build -trimpath -o bin/worker/worker ./test/e2e/worker
docker build --quiet --tag "$WORKER_IMG" --file test/e2e/worker/Dockerfile bin/worker >/dev/null 2>&1 || fail "docker build of $WORKER_IMG failed"
step "loading the images"
for i in "$IMG" "$WORKER_IMG" "$POSTGRES_IMG"; do "$kind" load docker-image --name "$cluster" "$i" >/dev/null 2>&1 || fail "kind could not load $i"; done

export KUBECTL=$kubectl KUBECONFIG=$PWD/bin/e2e/kubeconfig
step "making the database's volume"
# A folder of one node, bound to the claim of the overlay dev, because the default storage classes of kind's node images differ
# in who may write to what they provide, and in whether it follows the pod to another node.
# awk reads to the end: a reader that leaves early kills kind by SIGPIPE, and with it, now and then, this script.
node=$("$kind" get nodes --name "$cluster" | awk '/worker/ && !node {node = $0} END {print node}')
[ -n "$node" ] || fail "the cluster $cluster has no worker node; the specs need the nodes of test/e2e/kind.yaml"
claim=data-usage-operator-postgres-0 folder=/var/lib/usage-operator-e2e
"$kubectl" delete namespace usage-operator-system --ignore-not-found --timeout 2m >/dev/null
"$kubectl" delete persistentvolume usage-operator-e2e --ignore-not-found >/dev/null
docker exec "$node" sh -c "rm -rf $folder && mkdir $folder && chown 999:999 $folder"
class=$("$kubectl" get storageclass --output \
  'jsonpath={.items[?(@.metadata.annotations.storageclass\.kubernetes\.io/is-default-class=="true")].metadata.name}')
"$kubectl" create --filename - >/dev/null <<END
apiVersion: v1
kind: PersistentVolume
metadata: {name: usage-operator-e2e}
spec:
  storageClassName: ${class%% *}
  claimRef: {namespace: usage-operator-system, name: $claim}
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: $folder, type: Directory}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]
END

step "running the specs"
# Run as a program, because `go test` would keep what it prints to the end.
go test -tags e2e -c -o bin/e2e/e2e.test ./test/e2e
(cd test/e2e && ../../bin/e2e/e2e.test --test.timeout 45m --ginkgo.timeout 40m --ginkgo.v --ginkgo.no-color \
  --ginkgo.focus "${E2E_FOCUS:-}" --ginkgo.json-report ../../bin/e2e/report.json)
step "done"
