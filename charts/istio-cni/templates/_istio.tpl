{{/*
The values of Istio's own chart that a user has set, translated, as YAML: {cni, platform, unused}. istio-values.yaml, which `make
generate` writes, says what each becomes. They may stand at the top, below `cni`, and in the block of defaults of Istio's values.yaml.
A value that this chart has no equivalent of is refused with what it has instead; `unused` lists those without effect.
*/}}
{{- define "istio-cni.istio" -}}
{{- if not (hasKey .Values "istio-cni.istio") -}}{{- /* once for all templates: it takes as long as all the rest */ -}}
{{- $_ := set .Values "istio-cni.istio" (include "istio-cni.istio.read" .) -}}
{{- end -}}
{{- get .Values "istio-cni.istio" -}}
{{- end -}}

{{- define "istio-cni.istio.read" -}}
{{- $all := deepCopy .Values -}}
{{- $cni := dict -}}{{- $platform := "" -}}{{- $unused := list -}}{{- $repair := dict -}}{{- $mode := "" -}}
{{- range $of := .Files.Get "istio-values.yaml" | fromYamlArray -}}
{{- range $root := list "_internal_defaults_do_not_set" "" "cni" -}}
{{- $there := not (and $of.ours (eq $root "cni")) -}}
{{- $seen := ternary (get $all $root | default dict) $all (ne $root "") -}}
{{- range $key := splitList "." $of.path -}}
{{- $there = and $there (kindIs "map" $seen) -}}
{{- if $there -}}{{- $there = hasKey $seen $key -}}{{- end -}}
{{- if $there -}}{{- $seen = get $seen $key -}}{{- end -}}
{{- end -}}
{{- $name := ternary $of.path (printf "%s.%s" $root $of.path) (eq $root "") -}}
{{- $json := toJson $seen -}}
{{- if not $there -}}
{{- else if or (kindIs "invalid" $seen) (and $of.to (eq $json "\"\"")) -}}{{- /* asks for nothing */ -}}
{{- else if $of.pairs -}}
{{- $known := false -}}
{{- range $pair := $of.pairs -}}
{{- if eq (toJson (index $pair 0)) $json -}}
{{- $known = true -}}
{{- $to := index $pair 1 -}}
{{- if kindIs "invalid" $to -}}{{- /* asks for nothing */ -}}
{{- else if eq $of.to "platform" -}}{{- $platform = $to -}}
{{- else -}}{{- $_ := set $cni $of.to (dict "value" $to "name" $name "seen" $json "default" $of.default) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $known -}}{{- include "istio-cni.istio.refuse" (list $name $json $of) -}}{{- end -}}
{{- else if eq ($of.by | default "") "repair" -}}
{{- $mode = $of.default -}}
{{- $_ := set $repair (last (splitList "." $of.path)) $seen -}}
{{- else if eq ($of.by | default "") "level" -}}
{{- $level := "" -}}
{{- range list "debug" "info" "warn" "error" "fatal" "none" -}}
{{- if and (not $level) (regexMatch (printf "(^|[:,] *)%s *(,|$)" .) $seen) -}}{{- $level = . -}}{{- end -}}
{{- end -}}
{{- if not $level -}}{{- include "istio-cni.istio.refuse" (list $name $json (dict "doc" "expected [scope:]level,… of debug, info, warn, error, fatal, none")) -}}{{- end -}}
{{- $_ := set $cni $of.to (dict "value" (ternary "fatal" $level (eq $level "none")) "name" $name "seen" $json "default" $of.default) -}}
{{- else if $of.to -}}
{{- $_ := set $cni $of.to (dict "value" $seen "name" $name "seen" $json "default" $of.default) -}}
{{- else if or $of.expected $of.refused -}}
{{- $as := list -}}
{{- range concat ($of.expected | default list) ($of.refused | default list) -}}{{- $as = append $as (toJson .) -}}{{- end -}}
{{- if ne (has $json $as) (not (empty $of.expected)) -}}{{- include "istio-cni.istio.refuse" (list $name $json $of) -}}{{- end -}}
{{- else if and $seen (ne $root "_internal_defaults_do_not_set") -}}
{{- $unused = append $unused (printf "%s: %s" $name $of.doc) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $repair -}}
{{- $default := $mode -}}
{{- $mode = "none" -}}
{{- if not (dig "enabled" true $repair) -}}
{{- else if dig "repairPods" true $repair -}}{{- $mode = "redirect" -}}
{{- else if $repair.deletePods -}}{{- $mode = "delete" -}}
{{- else if $repair.labelPods -}}
{{- include "istio-cni.istio.refuse" (list "repair.labelPods" "true" (dict "doc" "set cni.repairMode=report, which names such pods in Events, metrics and the status of nodes")) -}}
{{- end -}}
{{- $_ := set $cni "repairMode" (dict "value" $mode "name" "repair" "seen" (toJson $repair) "default" $default) -}}
{{- end -}}
{{- $values := dict -}}
{{- $own := $all.cni | default dict -}}
{{- range $key, $set := $cni -}}
{{- $json := get $own $key | toJson -}}
{{- if and (hasKey $own $key) (not (has $json (list (toJson $set.default) (toJson $set.value)))) -}}
{{- fail (printf "%s, a value of Istio's chart: saw %s beside cni.%s=%s, expected one of the two" $set.name $set.seen $key $json) -}}
{{- end -}}
{{- $_ := set $values $key $set.value -}}
{{- end -}}
{{- dict "cni" $values "platform" $platform "unused" (uniq $unused) | toYaml -}}
{{- end -}}

{{- define "istio-cni.istio.refuse" -}}
{{- fail (printf "%s, a value of Istio's chart: saw %s: %s" (index . 0) (index . 1) (index . 2).doc) -}}
{{- end -}}

{{/*
Whether the DaemonSet of this release is that of Istio's own chart: this upgrade takes its place. Nothing without a cluster.
*/}}
{{- define "istio-cni.replaces-istios" -}}
{{- $agents := lookup "apps/v1" "DaemonSet" .Release.Namespace "istio-cni-node" | default dict -}}
{{- $release := dig "metadata" "annotations" "meta.helm.sh/release-name" "" $agents -}}
{{- if and (eq $release .Release.Name) (dig "metadata" "labels" "operator.istio.io/component" "" $agents) -}}true{{- end -}}
{{- end -}}

{{/* Whether that is under way: this upgrade begins it, or not all agents have been replaced since. */}}
{{- define "istio-cni.takes-over" -}}
{{- $account := lookup "v1" "ServiceAccount" .Release.Namespace "istio-cni" | default dict -}}
{{- $agents := lookup "apps/v1" "DaemonSet" .Release.Namespace "istio-cni-node" | default dict -}}
{{- $status := dig "status" dict $agents -}}
{{- $begun := eq .Release.Name (dig "metadata" "annotations" "meta.helm.sh/release-name" "" $account) -}}
{{- $wanted := toString $status.desiredNumberScheduled -}}
{{- $known := eq (toString $status.observedGeneration) (toString (dig "metadata" "generation" 0 $agents)) -}}
{{- $done := and $known (eq $wanted (toString $status.updatedNumberScheduled)) (eq $wanted (toString $status.numberReady)) -}}
{{- if or (include "istio-cni.replaces-istios" .) (and $begun (not $done)) -}}true{{- end -}}
{{- end -}}
