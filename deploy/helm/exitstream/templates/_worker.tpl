{{/* The pod of a worker or a shadow: `values` of that component, `own` settings that go before those of `.Values.settings`. */}}
{{- define "exitstream.workerPod" -}}
{{- $values := .values }}
{{- $own := .own }}
{{- with .context -}}
serviceAccountName: {{ include "exitstream.serviceAccount" . }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  {{- include "exitstream.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: worker
    image: {{ include "exitstream.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [worker]
    env:
      {{- include "exitstream.environment" (dict "context" . "own" $own) | nindent 6 }}
    ports:
      - {name: status, containerPort: {{ .Values.metrics.port | int }}}
    {{- include "exitstream.probes" . | nindent 4 }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- include "exitstream.containerSecurity" . | nindent 6 }}
    volumeMounts:
      {{- include "exitstream.mounts" . | nindent 6 }}
      - {name: bundle, mountPath: /bundle, readOnly: true}
volumes:
  {{- include "exitstream.volumes" . | nindent 2 }}
  - name: bundle
    {{- toYaml .Values.bundle.volume | nindent 4 }}
{{- include "exitstream.placement" $values | nindent 0 }}
{{- end }}
{{- end }}
