"""JSON schemas of KubeRay 1.7's RayCluster and RayJob (ray.io/v1).

No package ships the CRDs, so this is written from KubeRay's API reference: all fields of the parts
that people write, with types and enums; unknown fields are errors, which the CRD itself would drop
silently. Pod templates are only required to exist: they are checked against Kubernetes' own schema.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
POSITIVE: Schema = {**COUNT, "minimum": 1}
PRIORITY: Schema = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
NUMBER: Schema = {"type": "number", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
"""map[string]string: a bare 0 or true in YAML is an error, as for the API server."""
LISTED: Schema = {"type": "array", "items": TEXT}
POD_TEMPLATE: Schema = {"type": "object", "required": ["spec"]}
FOREIGN: Schema = {"type": "object"}
"""Checked by Kubernetes, or not used here."""
FOREIGN_LIST: Schema = {"type": "array", "items": FOREIGN}
LABELS: Schema = {
    "type": "object",
    "additionalProperties": {
        "type": "string",
        "maxLength": 63,
        "pattern": "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$",
    },
}


def one_of(*values: str) -> Schema:
    """One of these texts."""
    return {"enum": list(values)}


def fields(required: str = "", **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


AUTOSCALER_OPTIONS = fields(
    resources=FOREIGN,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    securityContext=FOREIGN,
    idleTimeoutSeconds=COUNT,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    version=one_of("v1", "v2"),
    env=FOREIGN_LIST,
    envFrom=FOREIGN_LIST,
    volumeMounts=FOREIGN_LIST,
    command=LISTED,
    args=LISTED,
)

HEAD_GROUP = fields(
    "template",
    template=POD_TEMPLATE,
    headService=FOREIGN,
    enableIngress=FLAG,
    ingressOptions=FOREIGN,
    resources=TEXTS,
    labels=LABELS,
    rayStartParams=TEXTS,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
)

WORKER_GROUP = fields(
    "groupName template minReplicas maxReplicas",
    groupName=TEXT,
    suspend=FLAG,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    priority=PRIORITY,
    resources=TEXTS,
    labels=LABELS,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
    scaleStrategy=FOREIGN,
    numOfHosts=POSITIVE,
)

CLUSTER_SPEC = fields(
    "headGroupSpec",
    upgradeStrategy=fields(type=one_of("Recreate", "None")),
    authOptions=fields(enableK8sTokenAuth=FLAG, secretName=TEXT, mode=one_of("disabled", "token")),
    suspend=FLAG,
    managedBy=TEXT,
    autoscalerOptions=AUTOSCALER_OPTIONS,
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=FOREIGN,
    historyServerOptions=FOREIGN,
    networkPolicy=FOREIGN,
    tlsOptions=fields(enabled=FLAG),
    headGroupSpec=HEAD_GROUP,
    rayVersion=TEXT,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)

JOB_SPEC = fields(
    activeDeadlineSeconds=POSITIVE,
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER_SPEC,
    submitterPodTemplate=POD_TEMPLATE,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    submitterConfig=fields(backoffLimit=COUNT),
    managedBy=TEXT,
    deletionStrategy=FOREIGN,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    entrypointResources=TEXT,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    ttlSecondsAfterFinished=COUNT,
    preRunningDeadlineSeconds=POSITIVE,
    shutdownAfterJobFinishes=FLAG,
    suspend=FLAG,
)

NAMES: Schema = {
    "type": "object",
    "required": ["name"],
    # The operator appends to a RayJob's name, and a label value ends at 63 characters.
    "properties": {
        "name": {"type": "string", "maxLength": 47, "pattern": "^[a-z][a-z0-9-]*[a-z0-9]$"}
    },
}


def custom_resource(kind: str) -> Schema:
    """The schema of a manifest of this kind, `RayCluster` or `RayJob`."""
    spec = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}[kind]
    return fields(
        "apiVersion kind metadata spec",
        apiVersion=one_of("ray.io/v1"),
        kind=one_of(kind),
        metadata=NAMES,
        spec=spec,
    )
