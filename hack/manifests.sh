#!/usr/bin/env bash
# Writes what is installed into a folder, with the operator's image:
#
#   crds.yaml                         the definitions, and the policies that guard them and the receipts; these stay
#   install.yaml                      all else of config/default; deleting it deletes no job and no receipt
#   install-namespaced-cluster.yaml   people's roles, for an operator without rights in the cluster (config/namespaced/cluster)
#   install-namespaced.yaml           that operator (config/namespaced)
#   bulkjob-operator-VERSION.tgz      the Helm chart, if there is a version
#
# The same arguments give the same bytes. Usage: KUBECTL=kubectl hack/manifests.sh FOLDER IMAGE [VERSION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly out=${1:?} img=${2:?} version=${3:-} kubectl=${KUBECTL:-kubectl}

render() { "$kubectl" kustomize "$1" | sed "s|image: controller:latest|image: $img|"; }

# select_kinds TEST: the documents of a stream whose kind stays when the operator goes (TEST is ~), or the others (!~).
select_kinds() {
	awk -v RS='\n?---\n' "\$0 $1 /(^|\n)kind: (CustomResourceDefinition|ValidatingAdmissionPolicy|ValidatingAdmissionPolicyBinding)\n/ {
		sub(/\n+\$/, \"\"); printf \"%s%s\n\", separator, \$0; separator = \"---\n\"}"
}

# chart_version: Helm takes semantic versions only, with or without a v; what git says of an untagged commit is none.
chart_version() {
	if [[ $version =~ ^v?([0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?)$ ]]; then
		echo "${BASH_REMATCH[1]}"
	else
		echo "0.0.0-dev.g${version//[^0-9A-Za-z-]/-}"
	fi
}

# pack FOLDER: the chart, in which image and versions are this release's.
pack() {
	local name=$img tag='' digest='' chart=$1/bulkjob-operator
	if [[ $name == *@* ]]; then digest=${name##*@} name=${name%@*}; fi
	if [[ ${name##*/} == *:* ]]; then tag=${name##*:} name=${name%:*}; fi
	cp -R config/helm "$chart"
	sed -i.orig "s|^version: .*|version: $(chart_version)|; s|^appVersion: .*|appVersion: \"$version\"|" "$chart/Chart.yaml"
	sed -i.orig "s|^  repository: .*|  repository: $name|; s|^  tag: .*|  tag: \"$tag\"|; s|^  digest: .*|  digest: \"$digest\"|" "$chart/values.yaml"
	rm "$chart"/*.orig
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar -C "$1" -cf - bulkjob-operator |
		gzip -9n >"$out/bulkjob-operator-$(chart_version).tgz"
}

mkdir -p "$out"
render config/default | select_kinds '~' >"$out/crds.yaml"
render config/default | select_kinds '!~' >"$out/install.yaml"
render config/namespaced/cluster | select_kinds '!~' >"$out/install-namespaced-cluster.yaml"
render config/namespaced >"$out/install-namespaced.yaml"
if [[ -z $version ]]; then exit; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pack "$folder"
