#!/usr/bin/env bash
# Builds every overlay of deploy/kubernetes with kustomize, and holds the result against the schemas of Kubernetes, KEDA and Prometheus
# Operator: unknown fields and wrong types are faults. Without a cluster.
#
# Needs Go and Python 3; kustomize is built from its Go module, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test
kustomize_version=v5.7.1
keda_version=v2.17.2
operator_version=v0.85.0
kustomize=$cache/kustomize-$kustomize_version
python=$cache/kubernetes

if [[ ! -x $kustomize ]]; then
    bin=$(mktemp -d)
    (cd / && GOBIN=$bin CGO_ENABLED=0 GOTOOLCHAIN=local go install -trimpath "sigs.k8s.io/kustomize/kustomize/v5@$kustomize_version")
    mkdir -p "$cache"
    mv "$bin/kustomize" "$kustomize"
fi
if [[ ! -x $python/bin/python ]]; then
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet kubernetes-validate==1.37.0
fi
module() { (cd / && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'); }
keda=$(module "github.com/kedacore/keda/v2@$keda_version")/config/crd/bases/keda.sh_scaledobjects.yaml
operator=$(module "github.com/prometheus-operator/prometheus-operator@$operator_version")/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml

diff "$root/queries/iot-10s.toml" "$root/deploy/kubernetes/base/iot-10s.toml" || { echo "the base's query is not the default query" >&2; exit 1; }
for folder in base overlays/example; do
    echo "deploy/kubernetes/$folder"
    "$kustomize" build "$root/deploy/kubernetes/$folder" | "$python/bin/python" "$here/schema.py" "$keda" "$operator"
done
