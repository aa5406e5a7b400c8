"""Writes grafana_dashboard.json beside itself: change a panel here, run this, commit both.

The panels are a table; Grafana's own SDK converts them to JSON and is responsible for types and
layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    StackingMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

TARGET = Path(__file__).with_suffix(".json")
RUN = '{run=~"$run"}'
WINDOW = "[5m]"
"""Window of rates. Parts are committed every few seconds to a minute, so that shorter windows would
show spikes."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel: a time series, or with `now` its last value in large type."""

    title: str
    unit: str
    """Grafana's name of the unit."""
    queries: dict[str, str]
    """Legend -> PromQL."""
    description: str
    """Meaning of the panel, and the remedy for bad values."""
    now: bool = False
    stacked: bool = False
    lowest: float | None = 0.0
    highest: float | None = None
    alarm: tuple[float, float] | None = None
    """Yellow from the first value on, red from the second; if the first is larger, below them."""


def rate(metric: str, by: str, only: str = "") -> str:
    """Rate per second of the selected runs, summed over processes; `only` adds a label filter."""
    chosen = f'{{run=~"$run", {only}}}' if only else RUN
    return f"sum by ({by}) (rate(ray_dfn_ray_{metric}_total{chosen}{WINDOW}))"


def gauge(metric: str) -> str:
    """A gauge of the driver; if two drivers follow each other closely, the larger value."""
    return f"max by (run) (ray_dfn_ray_{metric}{RUN})"


PROGRESS = [
    Panel(
        title="Done",
        unit="percentunit",
        now=True,
        queries={"{{run}}": f"{gauge('done_bytes')} / {gauge('pool_bytes')}"},
        description=(
            "Committed share of the pool's bytes, by all attempts. Empty: no driver is running; "
            "submit the same recipe again to resume."
        ),
    ),
    Panel(
        title="Time left",
        unit="s",
        now=True,
        queries={
            "{{run}}": f"({gauge('pool_bytes')} - {gauge('done_bytes')}) / "
            "sum by (run) (rate(ray_dfn_ray_read_bytes_total" + RUN + "[15m]))"
        },
        description=(
            "Time until every chunk is committed, at the rate of the last 15 min. Selection and "
            "the final rewriting of files follow. Infinite: nothing was committed for 15 min; see "
            "Since the last commit."
        ),
    ),
    Panel(
        title="Since the last commit",
        unit="s",
        now=True,
        alarm=(600, 1800),
        queries={"{{run}}": f"time() - {gauge('last_commit_timestamp_s')}"},
        description=(
            "Or since the driver's start. Red: no progress. No scorers alive: the cluster has no "
            "free GPU; check GPUs below and `ray status`. Scorers alive but busy share 0: reading "
            "or decoding hangs; check Read from the pool and the driver's log."
        ),
    ),
    Panel(
        title="Shards left",
        unit="locale",
        now=True,
        queries={"{{run}}": f"{gauge('pool_shards')} - {gauge('done_shards')}"},
        description="Incomplete shards. At 0, scoring is done.",
    ),
    Panel(
        title="Pairs per second",
        unit="ops",
        queries={
            "{{run}} committed": rate("samples", "run", 'status="scored"'),
            "{{run}} forwarded": f"max by (run) ({rate('forward_samples', 'run, network')})",
        },
        description=(
            "Committed scored pairs, and pairs that passed through a network. Forwarded above "
            "committed for long: work is repeated because tasks or nodes die; look for restarted "
            "scorers."
        ),
    ),
    Panel(
        title="Parts per minute",
        unit="short",
        queries={"{{run}}": f"60 * {rate('parts', 'run')}"},
        description=(
            "Commits. Pairs are forwarded but no parts are committed: writing to run_uri fails or "
            "is slow; the driver's log names the error."
        ),
    ),
]
SCORERS = [
    Panel(
        title="Scorers",
        unit="short",
        queries={
            "{{run}} alive": "sum by (run) (ray_dfn_ray_scorers" + RUN + ")",
            "starting": 'sum(ray_data_num_pending_actors{operator=~".*ScorerActor.*"})',
            "restarting": 'sum(ray_data_num_restarting_actors{operator=~".*ScorerActor.*"})',
        },
        description=(
            "Alive grows to scorers.max_size with the backlog. Starting for long: Ray waits for "
            "GPUs that the cloud does not provide. Restarting: scorers die; look for out-of-memory "
            "errors in their logs and lower scorers.batch_size."
        ),
    ),
    Panel(
        title="Scorers' busy share",
        unit="percentunit",
        highest=1.0,
        alarm=(0.8, 0.5),
        queries={
            "{{run}}": f"{rate('forward_s', 'run')} / sum by (run) (ray_dfn_ray_scorers{RUN})",
        },
        description=(
            "Share of the scorers' time spent in the forward pass. Below 0.5 they wait for decoded "
            'images: add CPU nodes, set decode.mode = "fast", or take fewer scorers.'
        ),
    ),
    Panel(
        title="Pairs per second of forward",
        unit="ops",
        queries={
            "{{run}} {{network}}": f"{rate('forward_samples', 'run, network')} / "
            f"{rate('forward_s', 'run, network')}"
        },
        description=(
            "Rate of one scorer while it has work. Falls by itself: a slow, throttled or shared "
            "device; find the node by GPU utilisation and drain it."
        ),
    ),
]
DROPS = [
    Panel(
        title="Drops per second by reason",
        unit="ops",
        stacked=True,
        queries={
            "{{status}}: {{reason}}": rate("samples", "status, reason", 'reason!=""'),
        },
        description=(
            "rejected: by the recipe's rules. failed: by a fault of the sample. A reason that "
            "appears suddenly: another source begins in the pool; look at it with `dfn-ray "
            "inspect`."
        ),
    ),
    Panel(
        title="Failed share",
        unit="percentunit",
        alarm=(0.1, 0.25),
        queries={
            "{{run}}": rate("samples", "run", 'status="failed"') + " / " + rate("samples", "run")
        },
        description=(
            "Of the samples of the last minutes. The run stops when the share of all samples "
            "exceeds execution.max_failed_fraction (default 0.25)."
        ),
    ),
    Panel(
        title="Bad shards by fault",
        unit="locale",
        stacked=True,
        queries={"{{fault}}": "sum by (fault) (ray_dfn_ray_bad_shards_total" + RUN + ")"},
        description=(
            "Since the driver's start. Many missing_shard or unreadable_shard: missing "
            "permissions, throttling or a wrong pool.uri; the run stops at "
            "execution.max_bad_shard_fraction."
        ),
    ),
    Panel(
        title="Scores",
        unit="short",
        lowest=None,
        queries={
            name: f"histogram_quantile({q}, {rate('scores', 'le')})"
            for name, q in (("median", 0.5), ("best 15%", 0.85), ("best 1%", 0.99))
        },
        description=(
            "Cosines of the deciding network, in bins of 0.02. A jump: the pool changes there. All "
            "near 0: wrong weights, tokenizer or quick_gelu for this network; stop and check on a "
            "few shards."
        ),
    ),
]
READING = [
    Panel(
        title="Read from the pool",
        unit="Bps",
        queries={
            "{{run}} committed": rate("read_bytes", "run"),
            "network in, all nodes": "sum(ray_node_network_receive_speed)",
        },
        description=(
            "Bytes of the pool covered by committed chunks, and all bytes that nodes receive, "
            "including Ray's own traffic. Network high, committed low: data is fetched repeatedly, "
            "or moves between nodes."
        ),
    ),
    Panel(
        title="Object store",
        unit="bytes",
        queries={
            "used": "sum(ray_object_store_used_memory)",
            "free": "sum(ray_object_store_available_memory)",
            "spilled to disk": 'sum(ray_object_store_memory{Location="SPILLED"})',
        },
        description=(
            "Chunks between the stages. Spilling: the object store is too small for the chunks in "
            "flight; enlarge it, or lower pool.chunk_bytes."
        ),
    ),
]
TRAINING = [
    Panel(
        title="Training done",
        unit="percentunit",
        now=True,
        queries={"{{run}}": f"{gauge('train_samples_seen')} / {gauge('train_total_samples')}"},
        description="Share of samples_seen. Drops to the last checkpoint when workers are lost.",
    ),
    Panel(
        title="Training time left",
        unit="s",
        now=True,
        queries={
            "{{run}}": f"({gauge('train_total_samples')} - {gauge('train_samples_seen')}) / "
            f"{gauge('train_samples_per_s')}"
        },
        description="At the rate of the last report.",
    ),
    Panel(
        title="Workers",
        unit="short",
        now=True,
        queries={"{{run}}": gauge("train_workers")},
        description=(
            "Of the last report. Fewer than workers.max_size: nodes are missing, and training "
            "continues without them."
        ),
    ),
    Panel(
        title="Loss",
        unit="short",
        queries={"{{run}}": gauge("train_loss")},
        description=(
            "Mean over all workers. Rises and stays high: lower optimizer.learning_rate or "
            "lengthen the warm-up, and resume from an earlier checkpoint. At ln(batch size) the "
            "network has learned nothing."
        ),
    ),
    Panel(
        title="Training samples per second",
        unit="ops",
        queries={"{{run}}": gauge("train_samples_per_s")},
        description=(
            "All workers. Falls as the data wait rises: add CPU nodes. Falls alone: a slow worker "
            "delays the others."
        ),
    ),
    Panel(
        title="Data wait",
        unit="percentunit",
        highest=1.0,
        alarm=(0.1, 0.3),
        queries={"{{run}}": gauge("train_data_wait_fraction")},
        description=(
            "Share of a worker's time without a batch. Above 0.1: add CPU nodes for decoding, or "
            "raise feed.prefetch_batches."
        ),
    ),
    Panel(
        title="Logit scale",
        unit="short",
        queries={"{{run}}": gauge("train_logit_scale")},
        description=(
            "Rises from 14 towards 100 and stays there. Falls early: the pairs do not match, or "
            "the learning rate is too high."
        ),
    ),
    Panel(
        title="Learning rate",
        unit="sci",
        queries={"{{run}}": gauge("train_learning_rate")},
        description="Warm-up, then a cosine to zero.",
    ),
]
CLUSTER = [
    Panel(
        title="Nodes",
        unit="short",
        stacked=True,
        queries={"{{node_type}}": "sum by (node_type) (ray_cluster_active_nodes)"},
        description=(
            "Alive nodes by type of the cluster file. Fewer than expected: spot nodes were "
            "reclaimed, or the cloud has none; the run continues with the others."
        ),
    ),
    Panel(
        title="GPUs",
        unit="short",
        stacked=True,
        queries={
            "used": 'sum(ray_resources{Name="GPU", State="USED"})',
            "idle": 'sum(ray_resources{Name="GPU", State="AVAILABLE"})',
        },
        description=(
            "As allocated by Ray. Idle for long: paid for but unused; lower the worker type's "
            "minimum, or raise scorers.max_size."
        ),
    ),
    Panel(
        title="GPU utilisation",
        unit="percent",
        highest=100.0,
        queries={
            "{{instance}} {{GpuIndex}}": "sum by (instance, GpuIndex) (ray_node_gpus_utilization)"
        },
        description="As reported by the GPU's driver. Empty on a cluster without GPUs.",
    ),
    Panel(
        title="CPU utilisation",
        unit="percent",
        highest=100.0,
        queries={"{{instance}}": "max by (instance) (ray_node_cpu_utilization)"},
        description=(
            "Decode nodes at 100 while the scorers' busy share is low: decoding is the bottleneck."
        ),
    ),
    Panel(
        title="Memory used",
        unit="percentunit",
        highest=1.0,
        alarm=(0.85, 0.95),
        queries={
            "{{instance}}": "max by (instance) (ray_node_mem_used) / "
            "max by (instance) (ray_node_mem_total)"
        },
        description=(
            "At 0.95 Ray kills tasks. Lower pool.chunk_bytes or execution.chunks_per_part, or use "
            "nodes with more memory per CPU."
        ),
    ),
    Panel(
        title="Disk used",
        unit="percent",
        highest=100.0,
        alarm=(80, 95),
        queries={"{{instance}}": "max by (instance) (ray_node_disk_utilization_percentage)"},
        description="At 95 Ray can no longer spill and the node fails.",
    ),
]
ROWS = {
    "Progress": PROGRESS,
    "Scorers": SCORERS,
    "Drops": DROPS,
    "Reading": READING,
    "Training": TRAINING,
    "Cluster": CLUSTER,
}
COLUMNS, HEIGHT = 24, 8
"""Width of Grafana's grid."""

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def build_dashboard() -> str:
    """The dashboard as JSON, for import into Grafana 10.4 and later."""
    board = (
        dashboard.Dashboard("dfn_ray")
        .uid("dfn-ray")
        .tags(["dfn_ray", "ray"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("run")
            .label("Run")
            .datasource(_SOURCE)
            .query('label_values({__name__=~"ray_dfn_ray_(pool_shards|train_total_samples)"}, run)')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
        )
    )
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            like = sum(other.now == panel.now for other in panels)
            beside = like if panel.now else (2 if like in (2, 4) else 3)
            shown = _grafana(panel).span(COLUMNS // beside)
            board = board.with_panel(shown.height(HEIGHT // 2 if panel.now else HEIGHT))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _grafana(panel: Panel) -> stat.Panel | timeseries.Panel:
    shown = _now() if panel.now else _series(panel)
    shown = (
        shown.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .thresholds(_thresholds(panel.alarm))
    )
    for number, (legend, expr) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(65 + number))
        shown = shown.with_target(query.instant() if panel.now else query.range())
    return shown


def _now() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _series(panel: Panel) -> timeseries.Panel:
    shown = timeseries.Panel().draw_style(GraphDrawStyle.LINE)
    if panel.lowest is not None:
        shown = shown.min(panel.lowest)
    if panel.highest is not None:
        shown = shown.max(panel.highest)
    if panel.alarm is not None:
        lines = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE)
        shown = shown.thresholds_style(lines)
    if panel.stacked:
        stacking = common.StackingConfig().mode(StackingMode.NORMAL)
        shown = shown.stacking(stacking).fill_opacity(30)
    return shown


def _thresholds(alarm: tuple[float, float] | None) -> dashboard.ThresholdsConfig:
    steps: list[tuple[float | None, str]] = [
        (None, "green")
    ]  # Grafana's own default is red from 80 on
    if alarm is not None and alarm[0] < alarm[1]:
        steps = [(None, "green"), (alarm[0], "yellow"), (alarm[1], "red")]
    elif alarm is not None:
        steps = [(None, "red"), (alarm[1], "yellow"), (alarm[0], "green")]
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value, colour) for value, colour in steps])
    )


if __name__ == "__main__":
    TARGET.write_text(build_dashboard())
