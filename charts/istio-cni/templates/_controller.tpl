{{/* The labels of each object of the controller's. */}}
{{- define "istio-cni.controller.labels" -}}
k8s-app: istio-cni-controller
app.kubernetes.io/name: istio-cni-controller
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The metadata of an object of the controller's in its namespace, that of the DaemonSet. */}}
{{- define "istio-cni.controller.metadata" -}}
name: istio-cni-controller
namespace: {{ include "istio-cni.namespace" . }}
labels:
  {{- include "istio-cni.controller.labels" . | nindent 2 }}
{{- end -}}

{{/* The ClusterRoles to which the controller may bind the node agents, if an IstioControlPlane sets one. */}}
{{- define "istio-cni.controller.mayBind" -}}
{{- $cni := include "istio-cni.values" . | fromYaml -}}
{{- concat $cni.controller.mayBind (list $cni.psp_cluster_role) | compact | uniq | toJson -}}
{{- end -}}
