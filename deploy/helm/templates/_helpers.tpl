{{/* The name of the ServiceAccount and of the ClusterRole: that of the chart, as plugin-barman-cloud's manifest has it. */}}
{{- define "cellarman.fullname" -}}
{{- default .Chart.Name (default .Values.nameOverride .Values.fullnameOverride) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "cellarman.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "cellarman.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cellarman.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the names of the namespaced roles begin with: nothing for the usual plugin. */}}
{{- define "cellarman.rolePrefix" -}}
{{- if ne (include "cellarman.fullname" .) .Chart.Name -}}
{{- printf "%s-" (include "cellarman.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "cellarman.labels" -}}
app.kubernetes.io/name: plugin-barman-cloud
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: the parts of the one, and where it has none those of the other. */}}
{{- define "cellarman.image" -}}
{{- $registry := default .fallback.registry .image.registry -}}
{{- $repository := default .fallback.repository .image.repository -}}
{{- $tag := default (default .appVersion .fallback.tag) .image.tag -}}
{{- with $registry -}}{{ . }}/{{- end -}}{{ $repository }}:{{ $tag }}
{{- end -}}

{{- define "cellarman.sidecarImage" -}}
{{- include "cellarman.image" (dict "image" .Values.sidecarImage "fallback" .Values.image "appVersion" .Chart.AppVersion) -}}
{{- end -}}

{{/* The lease of the leader: another one beside plugin-barman-cloud. */}}
{{- define "cellarman.lease" -}}
{{- if ne .Values.pluginName "barman-cloud.cloudnative-pg.io" -}}cellarman.{{- end -}}
822e3f5c.cnpg.io
{{- end -}}
