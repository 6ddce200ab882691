{{/*
The values under `cni`, as YAML: those that are set, over the platform's, over platforms/default.yaml. A value that is set replaces
another as a whole, also with an empty one. But the platform's required terms of affinity stay unless others are set: they exclude nodes
that run no DaemonSet.
*/}}
{{- define "istio-cni.values" -}}
{{- $cni := (.Files.Get "platforms/default.yaml" | fromYaml).cni -}}
{{- range $key, $value := (include "istio-cni.platform" . | fromYaml).cni -}}
{{- $_ := set $cni $key $value -}}
{{- end -}}
{{- $required := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" dict $cni.affinity -}}
{{- range $key, $value := .Values.cni -}}
{{- $_ := set $cni $key $value -}}
{{- end -}}
{{- range $key, $value := (include "istio-cni.istio" . | fromYaml).cni -}}
{{- $_ := set $cni $key $value -}}
{{- end -}}
{{- $affinity := $cni.affinity | default dict -}}
{{- if and $required (not (dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" dict $affinity)) -}}
{{- $kept := dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" $required) -}}
{{- $_ := set $cni "affinity" (mergeOverwrite (deepCopy $affinity) $kept) -}}
{{- end -}}
{{- toYaml $cni -}}
{{- end -}}

{{/*
The values of the DaemonSet, as YAML: those above, and over them those that the controller has written on the existing DaemonSet for
an IstioControlPlane. So an upgrade keeps them and restarts no agent. Whoever upgrades has more rights than the controller, whose token
may be stolen: only values that the controller may write itself are taken over.
*/}}
{{- define "istio-cni.node.values" -}}
{{- $cni := include "istio-cni.values" . | fromYaml -}}
{{- $there := lookup "apps/v1" "DaemonSet" (include "istio-cni.namespace" .) "istio-cni-node" -}}
{{- $written := dig "metadata" "annotations" "cni.istio.io/resource-values" "{}" ($there | default dict) | fromJson -}}
{{- $held := include "istio-cni.policies" . -}}
{{- with $written.hub -}}
{{- if or (not $held) (has . (include "istio-cni.hubs" $ | fromJsonArray)) -}}{{- $_ := set $cni "hub" (toString .) -}}{{- end -}}
{{- end -}}
{{- with $written.tag -}}
{{- if regexMatch "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$" (toString .) -}}{{- $_ := set $cni "tag" (toString .) -}}{{- end -}}
{{- end -}}
{{- with $written.pullPolicy -}}
{{- if has . (list "Always" "IfNotPresent" "Never") -}}{{- $_ := set $cni "pullPolicy" . -}}{{- end -}}
{{- end -}}
{{- $directories := concat (list $cni.cniBinDir $cni.cniConfDir) $cni.controller.allowedDirectories -}}
{{- range $key := list "cniBinDir" "cniConfDir" -}}
{{- with get $written $key | toString -}}
{{- $ofCni := and (regexMatch (include "istio-cni.directories" $) .) (not (regexMatch (include "istio-cni.no-directories" $) .)) -}}
{{- if or (not $held) (has . $directories) $ofCni -}}{{- $_ := set $cni $key . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with $written.resources -}}
{{- if kindIs "map" . -}}{{- $_ := set $cni "resources" (mergeOverwrite ($cni.resources | default dict) .) -}}{{- end -}}
{{- end -}}
{{- with $written.podAnnotations -}}
{{- if kindIs "map" . -}}
{{- $annotations := $cni.podAnnotations | default dict -}}
{{- range $key, $value := . -}}
{{- if or (not $held) (regexMatch (include "istio-cni.annotations" $) $key) -}}{{- $_ := set $annotations $key (toString $value) -}}{{- end -}}
{{- end -}}
{{- $_ := set $cni "podAnnotations" $annotations -}}
{{- end -}}
{{- end -}}
{{- toYaml $cni -}}
{{- end -}}

{{/* The chart's own values of those that an IstioControlPlane may set, as JSON: they return when they leave the resource. */}}
{{- define "istio-cni.node.chart-values" -}}
{{- $cni := include "istio-cni.values" . | fromYaml -}}
{{- $own := dict "tag" (include "istio-cni.tag" (dict "tag" $cni.tag "chart" .Chart)) -}}
{{- range list "hub" "pullPolicy" "cniBinDir" "cniConfDir" -}}{{- $_ := set $own . (get $cni .) -}}{{- end -}}
{{- range list "podAnnotations" "resources" -}}{{- $_ := set $own . (get $cni . | default dict) -}}{{- end -}}
{{- toJson $own -}}
{{- end -}}

{{/* The name of the platform's preset; empty: none. */}}
{{- define "istio-cni.platform-name" -}}
{{- $of := (include "istio-cni.istio" . | fromYaml).platform -}}
{{- $own := eq .Values.platform "openshift" | ternary "openshift-4" .Values.platform -}}
{{- if and $of $own (ne $of $own) -}}
{{- fail (printf "global.platform, a value of Istio's chart: saw %s beside platform=%s, expected one of the two" $of $own) -}}
{{- end -}}
{{- $own | default $of -}}
{{- end -}}

{{/* The preset of the platform, as YAML: `cni`, its values, and `notes`, what else to do. */}}
{{- define "istio-cni.platform" -}}
{{- with include "istio-cni.platform-name" . -}}
{{- $.Files.Get (printf "platforms/%s.yaml" .) -}}
{{- end -}}
{{- end -}}

{{- define "istio-cni.namespace" -}}
{{- (include "istio-cni.values" . | fromYaml).namespace | default .Release.Namespace -}}
{{- end -}}

{{/* The tag, digest or both of {tag, chart}. A tag of digits alone is a number in YAML; toJson writes it without an exponent. */}}
{{- define "istio-cni.tag" -}}
{{- $tag := .tag | default .chart.AppVersion -}}
{{- kindIs "string" $tag | ternary $tag (toJson $tag) -}}
{{- end -}}

{{/* The image of {cni, chart}: hub/install-cni and :tag, @digest or :tag@digest. */}}
{{- define "istio-cni.image" -}}
{{- with .cni.hub }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $tag := include "istio-cni.tag" (dict "tag" .cni.tag "chart" .chart) -}}
install-cni{{ if not (hasPrefix "@" $tag) }}:{{ end }}{{ $tag }}
{{- end -}}

{{/* The address that serves /healthz, /readyz and /metrics: {host, port, everywhere, loopback}; empty if there is none. */}}
{{- define "istio-cni.health" -}}
{{- with (include "istio-cni.values" . | fromYaml).healthAddress -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
host: {{ quote $host }}
port: {{ regexFind "[0-9]+$" . }}
everywhere: {{ has $host (list "0.0.0.0" "::") }}
loopback: {{ or (eq $host "localhost" "::1") (hasPrefix "127." $host) }}
{{- end -}}
{{- end -}}

{{/* The labels of the node agent's objects. */}}
{{- define "istio-cni.node.labels" -}}
k8s-app: istio-cni-node
app.kubernetes.io/name: istio-cni
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The metadata of a node agent's object in its namespace. */}}
{{- define "istio-cni.node.metadata" -}}
name: istio-cni-node
namespace: {{ include "istio-cni.namespace" . }}
labels:
  {{- include "istio-cni.node.labels" . | nindent 2 }}
{{- end -}}
