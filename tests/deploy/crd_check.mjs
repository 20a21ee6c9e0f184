// Validates custom resources against the schemas of their own definitions: a JSON list on standard input.
// Packages: @kubernetes-models/keda, @kubernetes-models/prometheus-operator.
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { ScaledObject, ServiceMonitor };
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) new kinds[manifest.kind](manifest).validate();
