{{- define "exitstream.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "exitstream.selector" -}}
app.kubernetes.io/name: {{ .context.Chart.Name }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "exitstream.labels" -}}
{{ include "exitstream.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version }}
{{- end }}

{{- define "exitstream.serviceAccount" -}}
{{- default (ternary (include "exitstream.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "exitstream.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "exitstream.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "exitstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings of all programs; those of `.Values.settings` go before, and before these the component's `own`. No name comes twice.
Credentials come from existing Secrets and stand in no manifest. */}}
{{- define "exitstream.environment" -}}
{{- $own := .own }}
{{- with .context -}}
- {name: EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS, value: {{ .Values.kafka.bootstrapServers | quote }}}
- {name: EXITSTREAM_KAFKA__SECURITY_PROTOCOL, value: {{ .Values.kafka.securityProtocol }}}
- {name: EXITSTREAM_KAFKA__DELIVERY, value: {{ .Values.kafka.delivery }}}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}
{{- $secret := required "kafka.credentialsSecret: name the Secret with username and password" .Values.kafka.credentialsSecret }}
- {name: EXITSTREAM_KAFKA__SASL_MECHANISM, value: {{ .Values.kafka.saslMechanism }}}
- name: EXITSTREAM_KAFKA__SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: username}}
- name: EXITSTREAM_KAFKA__SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: password}}
{{- end }}
{{- if .Values.kafka.tlsSecret }}
- {name: EXITSTREAM_KAFKA__TLS_CA_FILE, value: /tls/ca.crt}
{{- if .Values.kafka.mutualTls }}
- {name: EXITSTREAM_KAFKA__TLS_CERT_FILE, value: /tls/tls.crt}
- {name: EXITSTREAM_KAFKA__TLS_KEY_FILE, value: /tls/tls.key}
{{- end }}
{{- end }}
- {name: EXITSTREAM_TELEMETRY__HTTP_HOST, value: "0.0.0.0"}
- {name: EXITSTREAM_TELEMETRY__HTTP_PORT, value: {{ .Values.metrics.port | quote }}}
- {name: NUMBA_CACHE_DIR, value: /tmp/numba}
- {name: HOME, value: /tmp}
{{- $bundle := trimSuffix "/" (printf "/bundle/%s" .Values.bundle.path) }}
{{- $settings := dict "EXITSTREAM_WORKER__BUNDLE" $bundle "EXITSTREAM_UPDATER__BUNDLE" $bundle }}
{{- $_ := set $settings "EXITSTREAM_UPDATER__SNAPSHOTS" "/snapshots" }}
{{- range $name, $value := mergeOverwrite $settings .Values.settings $own }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "exitstream.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.kafka.tlsSecret }}
- {name: tls, mountPath: /tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "exitstream.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .Values.kafka.tlsSecret }}
- name: tls
  secret: {secretName: {{ .Values.kafka.tlsSecret }}}
{{- end }}
{{- end }}

{{- define "exitstream.probes" -}}
# Filling tables and warming up may take long; from then on a program that does not answer is started anew.
startupProbe:
  httpGet: {path: /healthz, port: status}
  periodSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: status}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: status}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{- define "exitstream.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
