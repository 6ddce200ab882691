{{/*
A ValidatingAdmissionPolicy for one account up to its `variables` and `validations`, after its binding; of (list . name account
group resources operations). RBAC says on which objects an account may act, a policy says how: a stolen token does no more than the
account's own work.
*/}}
{{- define "istio-cni.policy" -}}
{{- $of := index . 0 -}}
{{- $name := index . 1 -}}
{{- $account := index . 2 -}}
{{- $labels := include (ternary "istio-cni.controller.labels" "istio-cni.node.labels" (eq $account "istio-cni-controller")) $of -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - apiGroups: [{{ index . 3 | quote }}]
      apiVersions: ["*"]
      resources: {{ index . 4 | toJson }}
      operations: {{ index . 5 | toJson }}
  matchConditions:
  - name: by-{{ $account }}
    expression: request.userInfo.username == {{ printf "system:serviceaccount:%s:%s" (include "istio-cni.namespace" $of) $account | squote }}
{{- end -}}

{{/* Whether the API server has such policies: from Kubernetes 1.30 on. */}}
{{- define "istio-cni.policies" -}}
{{- if semverCompare ">= 1.30.0-0" .Capabilities.KubeVersion.Version }}yes{{ end -}}
{{- end -}}

{{/* CEL: of (list after before except…), only the excepted fields differ. */}}
{{- define "istio-cni.unchanged" -}}
{{- $after := printf "dyn(%s)" (index . 0) -}}
{{- $before := printf "dyn(%s)" (index . 1) -}}
{{- $but := slice . 2 | toJson -}}
{{ $after }}.all(k, k in {{ $but }} || k in {{ $before }} && {{ $after }}[k] == {{ $before }}[k]) && {{ $before }}.all(k, k in {{ $but }} || k in {{ $after }})
{{- end -}}

{{/* CEL: of the metadata, only these fields and those of the API server differ. */}}
{{- define "istio-cni.metadata-unchanged" -}}
{{- $kept := list "managedFields" "resourceVersion" "generation" -}}
{{- include "istio-cni.unchanged" (concat (list "object.metadata" "oldObject.metadata") $kept .) -}}
{{- end -}}

{{/* The node that an agent's token is bound to, as a variable; empty: none. */}}
{{- define "istio-cni.policy.node" -}}
- name: node
  expression: request.userInfo.extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')
- name: saw
  expression: "'saw the token of an agent on node ' + (variables.node == '' ? '(none)' : variables.node) + ', expected '"
{{- end -}}

{{/* The hubs that an IstioControlPlane may set, as JSON: the chart's, and the allowed ones. */}}
{{- define "istio-cni.hubs" -}}
{{- $cni := include "istio-cni.values" . | fromYaml -}}
{{- prepend $cni.controller.allowedHubs $cni.hub | toJson -}}
{{- end -}}

{{/*
The directories that an IstioControlPlane may set besides the chart's: CNI's by their paths, but not where others than root write.
Kubelets and runtimes keep pods' volumes and file systems below directories of their names, wherever these are.
*/}}
{{- define "istio-cni.directories" -}}
{{- $name := "[A-Za-z0-9_][A-Za-z0-9._-]*" -}}
{{- printf "^(/%s)*/cni([.-][A-Za-z0-9._-]*)?(/%s)*/?$" $name $name -}}
{{- end -}}
{{- define "istio-cni.no-directories" -}}
^/(proc|sys|dev|tmp|home|root|var/(tmp|home|roothome)|(var/)?run/user)/|/(kubelet|containerd|containers|docker|crio|overlay|overlay2|rootfs|snapshots|volumes)/
{{- end -}}

{{/* The annotations of the agents' pods that one may set: a whole key, or a domain up to its slash. */}}
{{- define "istio-cni.annotations" -}}
{{- $allowed := list "[A-Za-z0-9_-]+$" "(prometheus|cluster-autoscaler\\.kubernetes)\\.io/" -}}
{{- range (include "istio-cni.values" . | fromYaml).controller.allowedAnnotations -}}
{{- $allowed = append $allowed (printf "%s%s" (regexQuoteMeta .) (hasSuffix "/" . | ternary "" "$")) -}}
{{- end -}}
^({{ join "|" $allowed }})
{{- end -}}
