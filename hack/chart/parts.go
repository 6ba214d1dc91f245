package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// What the bases are written for, and a release replaces by its own.
const (
	namespace = "bulkjob-system"
	team      = "team-a"
)

// Conditions of templates.
const (
	cluster  = "$.Values.cluster.enabled"
	operator = "$.Values.operator.enabled"
	wide     = "and $.Values.operator.enabled (not $.Values.namespaces)"
	reports  = wide + " $.Values.reports.configMaps"
	sharing  = "and $.Values.operator.enabled $.Values.shards"
	called   = "and $.Values.operator.enabled $.Values.callback.url"
	policed  = "and $.Values.operator.enabled $.Values.networkPolicy.enabled"
	several  = "and $.Values.operator.enabled (gt (int $.Values.replicas) 1)"
	scraped  = "and $.Values.operator.enabled $.Values.metrics.serviceMonitor"
	shown    = "and $.Values.operator.enabled $.Values.metrics.dashboard"
	alarmed  = "and $.Values.operator.enabled $.Values.metrics.rules"
	noted    = "and $.Values.operator.enabled $.Values.reports.configMaps"
)

// Loops of templates. Without shards there is one that has no name.
const (
	eachShard = "$shard := $.Values.shards | default (list dict)"
	eachTeam  = "$namespace := $.Values.namespaces"
)

// A source is a base with components, and the parts of the chart that its objects are.
type source struct {
	base       string
	components []string
	parts      []part
	// rest says that objects that are no part of it come from another source.
	rest bool
}

// A part takes objects by kind and by name, both patterns of path.Match.
type part struct {
	kind, name string
	// file has no ending; empty: the chart leaves these objects out.
	file, when, each string
	edit             func(*editor)
}

var sources = []source{
	{
		base: "default", components: []string{"../../callback/operator", "../../report/operator"},
		parts: []part{
			{kind: "Namespace", name: "*"}, // Helm makes it, and leaves it when it goes
			{kind: "CustomResourceDefinition", name: "*", file: "crds", when: cluster, edit: definition},
			{kind: "ValidatingAdmissionPolicy", name: "bulkjob-receipts", file: "policies", when: cluster, edit: receiptsPolicy},
			{kind: "ValidatingAdmissionPolicy*", name: "*", file: "policies", when: cluster},
			{kind: "ClusterRole", name: "bulkjob-connectors-*", file: "people", when: cluster},
			{kind: "ClusterRole", name: "bulkjob-jobs-*", file: "people", when: cluster},
			{kind: "ClusterRole", name: "bulkjob-receipts-*", file: "people", when: cluster},
			{kind: "ServiceAccount", name: "*", file: "operator", when: operator, edit: account},
			{kind: "Role*", name: "*", file: "operator", when: operator},
			{kind: "ClusterRole*", name: "bulkjob-manager-reports-*", file: "operator", when: reports},
			{kind: "ClusterRole*", name: "bulkjob-m*", file: "operator", when: wide},
			{kind: "Service", name: "*-callbacks", file: "operator", when: called},
			{kind: "Service", name: "*-metrics", file: "manager", when: wide, each: eachShard, edit: metricsService},
			{kind: "PodDisruptionBudget", name: "*", file: "manager", when: several, each: eachShard, edit: disruptionBudget},
			{kind: "Deployment", name: "*", file: "manager", when: operator, each: eachShard, edit: deployment},
		},
	},
	{
		base: "namespaced", rest: true,
		parts: []part{{kind: "Role*", name: "bulkjob-manager-jobs-*", file: "operator", when: operator, each: eachTeam}},
	},
	{
		base: "report/team", parts: []part{
			{kind: "Role*", name: "*", file: "operator", when: noted, each: eachTeam},
		},
	},
	{
		base: "shard", rest: true,
		parts: []part{{kind: "ClusterRole*", name: "bulkjob-manager-namespaces-*", file: "operator", when: sharing}},
	},
	{
		base: "network-policy", parts: []part{
			{kind: "NetworkPolicy", name: "bulkjob-egress", file: "networkpolicy", when: policed, edit: egress},
			{kind: "NetworkPolicy", name: "*", file: "networkpolicy", when: policed},
		},
	},
	{
		base: "callback/network-policy", parts: []part{
			{kind: "NetworkPolicy", name: "*", file: "networkpolicy", when: policed + " $.Values.callback.url"},
		},
	},
	{
		base: "prometheus", parts: []part{
			{kind: "ServiceMonitor", name: "*", file: "prometheus", when: scraped},
			{kind: "PrometheusRule", name: "*", file: "prometheus", when: alarmed},
		},
	},
	{
		base: "grafana", parts: []part{{kind: "ConfigMap", name: "*", file: "grafana", when: shown}},
	},
}

// template is the file that an object belongs into, and its text there.
func (s *source) template(o object) (file, text string, err error) {
	kind, _ := o["kind"].(string)
	metadata, _ := o["metadata"].(object)
	named, _ := metadata["name"].(string)
	for i := range s.parts {
		p := &s.parts[i]
		byKind, err1 := path.Match(p.kind, kind)
		byName, err2 := path.Match(p.name, named)
		if err := errors.Join(err1, err2); err != nil {
			return "", "", err
		}
		if !byKind || !byName {
			continue
		}
		text, err := p.template(o)
		return p.file, text, err
	}
	if s.rest {
		return "", "", nil
	}
	return "", "", errors.New("cannot find a part that takes it")
}

func (p *part) template(o object) (string, error) {
	e := &editor{object: o}
	if p.edit != nil {
		p.edit(e)
	}
	e.object, _ = e.replace(e.object).(object)
	text, err := e.text()
	if err != nil {
		return "", err
	}
	for _, foreign := range []string{namespace, team} {
		if strings.Contains(text, foreign) && p.file != "" {
			return "", fmt.Errorf("cannot leave %s in it", foreign)
		}
	}
	open, shut := "{{- if "+p.when+" }}\n", "{{- end }}\n"
	if p.each != "" {
		open, shut = open+"{{- range "+p.each+" }}\n", shut+"{{- end }}\n"
	}
	return open + "---\n" + text + shut, nil
}

// replace puts a release's namespaces in the place of those that the bases are written for.
func (e *editor) replace(value any) any {
	switch v := value.(type) {
	case object:
		for key := range v {
			v[key] = e.replace(v[key])
		}
	case []any:
		for i := range v {
			v[i] = e.replace(v[i])
		}
	case string:
		switch v {
		case namespace:
			return e.mark("{{ $.Release.Namespace }}")
		case team:
			return e.mark("{{ $namespace }}")
		}
	}
	return value
}

// definition is kept by Helm, which the base says, unless the values say otherwise; then the policy must let it go, too.
func definition(e *editor) {
	e.only("metadata.annotations", "$.Values.cluster.keep", "helm.sh/resource-policy")
	e.insert("metadata.annotations", "{{- if not $.Values.cluster.keep }}", "bulkjob.dev/deletion: allowed", "{{- end }}")
}

func receiptsPolicy(e *editor) {
	for variable, action := range map[string]string{
		"operatorNamespace": `{{ printf "'%s'" ($.Values.cluster.operatorNamespace | default $.Release.Namespace) | quote }}`,
		"restorers":         `{{ printf "['%s']" (join "', '" $.Values.cluster.restorers) | replace "['']" "[]" | quote }}`,
	} {
		found := false
		e.list("spec", "variables", func(list []any) []any {
			for _, item := range list {
				if v, ok := item.(object); ok && v["name"] == variable {
					v["expression"], found = e.mark(action), true
				}
			}
			return list
		})
		if !found {
			e.failf("cannot find the variable %s", variable)
		}
	}
}

func account(e *editor) {
	e.insert("metadata", "{{- with $.Values.serviceAccount.annotations }}", "annotations: {{- toYaml . | nindent 4 }}", "{{- end }}")
}

// shard marks what each shard has of its own as config/shard does: by a suffix and by a label at each of the paths.
func shard(e *editor, labels ...string) {
	e.suffix("metadata", "name", "{{ with $shard.name }}-{{ . }}{{ end }}")
	for _, path := range labels {
		e.insert(path, "{{- with $shard.name }}", "bulkjob.dev/shard: {{ . | quote }}", "{{- end }}")
	}
}

func metricsService(e *editor) { shard(e, "metadata.labels", "spec.selector") }

func disruptionBudget(e *editor) { shard(e, "metadata.labels", "spec.selector.matchLabels") }

func deployment(e *editor) {
	const pod, container = "spec.template.spec", "spec.template.spec.containers.0"
	shard(e, "metadata.labels", "spec.selector.matchLabels", "spec.template.metadata.labels",
		pod+".topologySpreadConstraints.0.labelSelector.matchLabels")
	e.set("spec", "replicas", "{{ $.Values.replicas }}")
	e.set(container, "image", `{{ include "bulkjob.image" $ | quote }}`)
	e.set(container, "resources", "{{- toYaml $.Values.resources | nindent 10 }}")
	e.list(container, "args", e.args)
	e.list(container, "ports", e.ports)
	e.list(container, "env", func(list []any) []any {
		return append(list, e.mark("{{- with $.Values.env }}\n{{- toYaml . | nindent 8 }}\n{{- end }}"))
	})
	e.insert(container, with("image.pullPolicy", "imagePullPolicy: {{ . }}")...)
	e.insert(container, with("volumeMounts", "volumeMounts: {{- toYaml . | nindent 8 }}")...)
	e.insert(pod, with("priorityClassName", "priorityClassName: {{ . | quote }}")...)
	for _, key := range []string{"affinity", "imagePullSecrets", "nodeSelector", "tolerations", "volumes"} {
		e.insert(pod, with(key, key+": {{- toYaml . | nindent 8 }}")...)
	}
	e.only("spec.template.metadata.labels", "not $.Values.mesh.join", "istio.io/dataplane-mode", "sidecar.istio.io/inject")
	e.only("spec.template.metadata.annotations", "not $.Values.mesh.join", "linkerd.io/inject")
	e.insert("spec.template.metadata.labels", with("podLabels", "{{- toYaml . | nindent 8 }}")...)
	e.insert("spec.template.metadata.annotations", with("podAnnotations", "{{- toYaml . | nindent 8 }}")...)
}

// with is lines that stand only if the value isn't empty.
func with(value string, line string) []string {
	return []string{"{{- with $.Values." + value + " }}", line, "{{- end }}"}
}

// args are those of the base, and the flags that values stand for.
func (e *editor) args(list []any) []any {
	is := func(prefix string) func(any) bool {
		return func(item any) bool {
			text, ok := item.(string)
			return ok && strings.HasPrefix(text, prefix)
		}
	}
	list = e.around(list, is("--leader-elect"), "{{- if $.Values.leaderElection }}", "{{- end }}")
	list = e.around(list, is("--metrics-bind-address="), "{{- if not $.Values.namespaces }}", confinedArgs)
	list = e.around(list, is("--callback-"), "{{- if $.Values.callback.url }}", "{{- end }}")
	for i, item := range list {
		if is("--callback-url=")(item) {
			list[i] = e.mark(`- {{ printf "--callback-url=%s" $.Values.callback.url | quote }}`)
		}
	}
	return append(list, e.mark(moreArgs))
}

// confinedArgs are those of config/namespaced, and the one of config/shard.
const confinedArgs = `{{- else }}
- --metrics-bind-address=127.0.0.1:8080
- --metrics-secure=false
- {{ printf "--namespaces=%s" (join "," $.Values.namespaces) | quote }}
{{- end }}
{{- with $shard.selector }}
- {{ printf "--namespace-selector=%s" . | quote }}
{{- end }}`

const moreArgs = `{{- if $.Values.connections.allowHTTP }}
- --allow-http
{{- end }}
{{- with $.Values.connections.allowPrivate }}
- {{ printf "--allow-private=%s" (join "," .) | quote }}
{{- end }}
{{- with $.Values.connections.allowedHosts }}
- {{ printf "--allowed-hosts=%s" (join "," .) | quote }}
{{- end }}
{{- if ne (toString $.Values.logLevel) "info" }}
- {{ printf "--zap-log-level=%v" $.Values.logLevel | quote }}
{{- end }}
{{- range $.Values.extraArgs }}
- {{ . | quote }}
{{- end }}`

// ports are those of the base, each where it is listened at.
func (e *editor) ports(list []any) []any {
	is := func(name string) func(any) bool {
		return func(item any) bool { port, _ := item.(object); return port["name"] == name }
	}
	list = e.around(list, is("metrics"), "{{- if not $.Values.namespaces }}", "{{- end }}")
	return e.around(list, is("callbacks"), "{{- if $.Values.callback.url }}", "{{- end }}")
}

func egress(e *editor) {
	e.list("spec", "egress", func(list []any) []any {
		return append(list, e.mark("{{- with $.Values.networkPolicy.extraEgress }}\n{{- toYaml . | nindent 2 }}\n{{- end }}"))
	})
}
