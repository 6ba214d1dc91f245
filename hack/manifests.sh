#!/usr/bin/env bash
# Writes what kubectl installs into a folder, with the operator's image:
#
#   crds.yaml                         the definitions, and the policies that guard them and the receipts; these stay
#   install.yaml                      all else of config/default; deleting it deletes no job and no receipt
#   install-namespaced-cluster.yaml   people's roles, for an operator without rights in the cluster (config/namespaced/cluster)
#   install-namespaced.yaml           that operator (config/namespaced)
#
# Usage: KUBECTL=kubectl hack/manifests.sh FOLDER IMAGE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly out=${1:?} img=${2:?} kubectl=${KUBECTL:-kubectl}

render() { "$kubectl" kustomize "$1" | sed "s|image: controller:latest|image: $img|"; }

# select TEST: the documents of a stream whose kind stays when the operator goes (TEST is ~), or the others (!~).
select_kinds() {
	awk -v RS='\n?---\n' "\$0 $1 /(^|\n)kind: (CustomResourceDefinition|ValidatingAdmissionPolicy|ValidatingAdmissionPolicyBinding)\n/ {
		sub(/\n+\$/, \"\"); printf \"%s%s\n\", separator, \$0; separator = \"---\n\"}"
}

mkdir -p "$out"
render config/default | select_kinds '~' >"$out/crds.yaml"
render config/default | select_kinds '!~' >"$out/install.yaml"
render config/namespaced/cluster | select_kinds '!~' >"$out/install-namespaced-cluster.yaml"
render config/namespaced >"$out/install-namespaced.yaml"
