#!/usr/bin/env bash
# deploy.sh deploy|undeploy OVERLAY NAMESPACE IMAGE POSTGRES_IMAGE: put an overlay of config/ on the cluster that kubectl
# points at, with these images and in this namespace, or take it away again.
set -euo pipefail
cd "$(dirname "$0")/.."
action=$1 overlay=$2 namespace=$3 image=$4 postgres=$5
kubectl=${KUBECTL:-kubectl}

fail() { echo "deploy: $*" >&2; exit 1; }
command -v "$kubectl" >/dev/null || fail "$kubectl is not installed; set KUBECTL to it"
folder=config/overlays/$overlay
[ "$overlay" != default ] || folder=config/default
[ -e "$folder/kustomization.yaml" ] || fail "there is no overlay $overlay: choose default or one of $(ls config/overlays | tr '\n' ' ')"

# An image's name and its tag; a port of the registry is no tag.
name() { case ${1##*/} in *:*) echo "${1%:*}" ;; *) echo "$1" ;; esac; }
tag() { case ${1##*/} in *:*) echo "${1##*:}" ;; *) echo latest ;; esac; }

# Two layers: what refers to the namespace in a text is replaced after it has been set.
mkdir -p bin/deploy/base
cat >bin/deploy/base/kustomization.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $namespace
resources:
- ../../../$folder
images:
- name: usage-operator
  newName: $(name "$image")
  newTag: $(tag "$image")
- name: postgres
  newName: $(name "$postgres")
  newTag: "$(tag "$postgres")"
END
cat >bin/deploy/kustomization.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- base
components:
- ../../config/namespace
END

case $action in
deploy)
  "$kubectl" apply --server-side --kustomize bin/deploy
  for deployment in usage-operator-manager usage-operator-usaged; do
    "$kubectl" --namespace "$namespace" rollout status --timeout 5m deployment/$deployment ||
      fail "$deployment is not ready after 5 minutes; see kubectl --namespace $namespace get pods, and describe those that are not ready"
  done
  ;;
undeploy)
  # The programs first, so that the external database is told of nothing: its plans are as they were for the next deployment.
  "$kubectl" --namespace "$namespace" delete deployment usage-operator-manager usage-operator-usaged \
    --ignore-not-found --cascade foreground --timeout 2m
  # Plans and quotas go with their kinds, everything else with the namespace; nothing of it has a finalizer of ours.
  "$kubectl" delete --ignore-not-found --timeout 5m --kustomize bin/deploy
  ;;
*) fail "the first argument must be deploy or undeploy" ;;
esac
