"""The tables of the other benchmarks, of `exitstream evaluate` and of the demo, made from their JSON files."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.markdown import Figures, listed, measured, percent, table


def graph(figures: Figures) -> str:
    """Speed and exactness of the graph engine."""
    recompute, sizes = figures["recompute_seconds"], figures["by_size"]
    kept = "within the derived bound at every node" if figures["within_bound"] else "BEYOND THE DERIVED BOUND"
    batch = f"{1e3 * figures['batch_seconds']:.2f} ms, {figures['batch_speedup']:,.0f} × cheaper"
    single = f"{1e6 * figures['single_event_seconds']:.0f} µs, {figures['single_event_speedup']:,.0f} × cheaper"
    memory = listed((figures[f"bytes_per_{what}"] for what in ("edge", "node", "past_interaction")), ",.0f")
    edges = listed(row["edges"] / 1e6 for row in sizes)
    return measured(
        (f"events/s at ε = {figures['epsilon']:g}, one core", f"{figures['events_per_second']:,.0f}", "100,000"),
        ("smallest cosine to the exact embeddings, over all nodes", f"{figures['min_cosine']:.5f}", "0.999"),
        (
            f"relative error, mean / largest ({kept})",
            f"{figures['mean_relative_error']:.1%} / {figures['max_relative_error']:.1%}",
        ),
        (f"one whole recomputation, {' / '.join(recompute)}", f"{listed(recompute.values(), '.2f')} s"),
        (f"a micro-batch of {figures['batch_events']} events against one recomputation by the faster", batch),
        ("a single event alone against one recomputation by the faster", single),
        (
            "events/s through the whole state machine, histories and counts included",
            f"{figures['state_events_per_second']:,.0f}",
        ),
        ("longest pause by a snapshot", f"{figures['snapshot_pause_ms']:.1f} ms", "50 ms"),
        ("snapshot: all pauses and writing it", f"{figures['snapshot_ms']:.0f} ms"),
        ("restore", f"{figures['restore_seconds']:.2f} s", "2 s"),
        ("memory per edge / node / past interaction", f"{memory} bytes"),
        (
            f"µs per event at {edges} million edges (synthetic power law)",
            listed(row["event_us"] for row in sizes),
            "flat",
        ),
    )


def graph_drift(figures: Figures) -> str:
    """Errors while events go through the graph."""
    checks = figures["checks"]
    cosines = [check["min_cosine"] for check in checks]
    kept = "at every check" if all(check["within_bound"] for check in checks) else "NOT at every check"
    return measured(
        (f"insertions and removals, at ε = {figures['epsilon']:g}", f"{figures['events']:,}"),
        ("error within the derived bound", kept, "at every check"),
        ("mean relative error, before / after", listed((checks[i]["mean_relative"] for i in (0, -1)), ".1%")),
        ("smallest cosine, lowest / highest of the checks", f"{min(cosines):.4f} / {max(cosines):.4f}"),
    )


def freshness(figures: Figures) -> str:
    """How long an interaction takes until it can be served, by rate."""
    rows = (
        (
            f"{row['rate']:,}",
            "yes" if row["kept_up"] else "no",
            f"{row['freshness_p50_ms']:.0f} ms",
            f"{row['freshness_p99_ms']:.0f} ms",
        )
        for row in figures["rates"]
    )
    sustained = f"Interactions per second sustained: {figures['sustained_events_per_second']:,.0f} (goal 15,000)."
    return f"{sustained}\n\n" + table(("events/s", "kept up", "freshness p50", "p99"), rows)


def engine(figures: Figures) -> str:
    """The scoring engine against what a user would write and against ONNX Runtime."""
    ours = ("full_depth", "exit", "exit_int8", "exit_bfloat16")
    rates = listed((figures[f"{name}_candidates_per_second"] for name in ours), ",.0f")
    saved = figures["time_saved_per_token_layers_saved"]
    alone = listed((figures[f"p{percentile}_ms"] for percentile in (50, 99)), ".1f")
    alone_full = listed((figures[f"full_depth_p{percentile}_ms"] for percentile in (50, 99)), ".1f")
    return measured(
        (
            "candidates/s, transformers, padded, float32 (the naive way)",
            f"{figures['naive_candidates_per_second']:,.0f}",
        ),
        ("candidates/s, ONNX Runtime int8", f"{figures['onnx_candidates_per_second']:,.0f}"),
        ("candidates/s, this engine: full depth / base exits / with int8 / with bfloat16", rates),
        ("full depth, float32, against the naive way", f"{figures['full_depth_speedup']:.2f} ×", "3 ×"),
        ("exits at the base threshold against the naive way", f"{figures['exit_speedup']:.1f} ×"),
        (f"best (`{figures['best']}`) against the naive way", f"{figures['best_speedup']:.1f} ×", "10 ×"),
        ("best against ONNX Runtime", f"{figures['best_speedup_over_onnx']:.1f} ×", "4 ×"),
        (
            "AUC full depth / exits / with int8 / with bfloat16",
            listed((figures[f"auc_{name}"] for name in ours), ".4f"),
            "within 0.001",
        ),
        ("token-layers executed with exits", percent(figures["token_layers_share"])),
        ("time saved ÷ token-layers saved", "none saved" if saved is None else f"{saved:.2f}", "0.85"),
        (
            "share of time outside the model, full depth / exits",
            f"{percent(figures['outside_model_share'])} / {percent(figures['exit_outside_model_share'])}",
            "10 %",
        ),
        ("`mfu`, full depth", f"{figures['mfu']:.2f}", "0.6"),
        ("one request alone, exits: p50 / p99", f"{alone} ms"),
        ("one request alone, full depth: p50 / p99", f"{alone_full} ms"),
    )


def engine_frontier(figures: Figures) -> str:
    """AUC against time by exit threshold, for both confidence criteria."""
    runs = [[run for run in figures["frontier"] if run["criterion"] == name] for name in ("calibrated", "ratio")]
    rows = (
        [text for run in pair for text in (f"{run['microseconds_per_candidate']:.0f}", f"{run['auc']:.4f}")]
        for pair in zip(*runs, strict=True)
    )
    return table(("calibrated confidence: µs per candidate", "AUC", "the paper's ratio: µs per candidate", "AUC"), rows)


def engine_memory(figures: Figures) -> str:
    """What a model takes in each number format, beside the weights alone."""
    formats = [name for name, told in figures.items() if isinstance(told, dict)]
    rows = [
        (
            name,
            f"{figures[name]['weights_mb']:.0f} MB",
            f"{figures[name]['model_mb']:.0f} MB",
            f"{figures[name]['times_weights']:.2f} ×",
        )
        for name in formats
    ]
    return table(("number format", "weights", "resident, less the libraries", "ratio (goal ≤ 1.2 ×)"), rows)


def soak(figures: Figures) -> str:
    """What was kept while something broke every twenty seconds."""
    recovery, modes = figures["recovery_seconds_max"], figures["delivery"]
    kinds = {fault["kind"] for fault in figures["faults"]}
    count = f"{len(figures['faults'])} of {len(kinds)} kinds in {figures['minutes']:.0f} minutes"
    rows = [
        ("requests / interactions", f"{figures['requests']:,} / {figures['interactions']:,}"),
        ("faults", count),
        ("lost, both modes", f"{figures['lost']}", "0"),
        ("answered more than once, `exactly_once`", f"{figures['duplicates']['exactly_once']}", "0"),
        ("answered more than once, `at_least_once`", f"{figures['duplicates']['at_least_once']}"),
        ("longest recovery from a fault", "one never came" if recovery is None else f"{recovery:.1f} s", "30 s"),
        ("programs that ended of themselves", f"{len(figures['ended_by_themselves'])}", "0"),
        *((f"p99 outside of faults, `{mode}`", _milliseconds(told["p99_ms"])) for mode, told in modes.items()),
    ]
    for program, slope in figures["rss_slope_mb_per_hour"].items():
        descriptors = figures["fd_slope_per_hour"][program]
        growth = f"{slope:+.1f} MB/h at {figures['rss_mb'][program]:.0f} MB, {descriptors:+.1f} descriptors/h"
        rows.append((f"growth of `{program}`", growth, "flat"))
    return measured(*rows)


def quality(movielens: Figures, synthetic: Figures) -> str:
    """AUC and log loss of every way of scoring, on both data sets."""

    def row(name: str, cells: Callable[[Figures], tuple[str, str]]) -> tuple[str, ...]:
        return (name, *cells(movielens), *cells(synthetic))

    limit = synthetic.get("limit_auc")
    return table(
        ("scored by", "MovieLens 100K: AUC", "log loss", "synthetic: AUC", "log loss"),
        (
            row("as served, base threshold", lambda told: _auc_and_loss(told["served"])),
            row("full depth", lambda told: _auc_and_loss(told["heads"][-1])),
            row("first head alone", lambda told: _auc_and_loss(told["heads"][0])),
            row("graph score alone", lambda told: (f"{told['graph']['auc']:.4f}", "")),
            row("running user mean + item mean", lambda told: (f"{told['baseline_auc']:.4f}", "")),
            *([] if limit is None else [("limit: the world's own probabilities", "", "", f"{limit:.4f}")]),
        ),
    )


def exits(movielens: Figures, synthetic: Figures) -> str:
    """How the base threshold works out on both data sets."""
    both = movielens, synthetic
    left_at = [
        ", ".join(f"{layer}: {percent(share)}" for layer, share in zip(x["exit_layers"], x["exit_shares"], strict=True))
        for x in both
    ]
    rows = (
        ("events", *(f"{told['events']:,}" for told in both)),
        ("calibration error", *(f"{told['served']['calibration_error']:.3f}" for told in both)),
        ("token-layers executed", *(percent(told["token_layer_share"]) for told in both)),
        ("exits by layer", *left_at),
    )
    return table(("as served", "MovieLens 100K", "synthetic"), rows)


def quality_short(movielens: Figures) -> str:
    """The three lines of the README."""
    auc, log_loss = _auc_and_loss(movielens["served"])
    rows = (
        ("exitstream, each event as of its time", f"**{auc}**", log_loss),
        ("graph score alone", f"{movielens['graph']['auc']:.4f}"),
        ("running user mean + item mean", f"{movielens['baseline_auc']:.4f}"),
    )
    return table(("MovieLens 100K, last tenth in time order", "AUC", "log loss"), rows)


def pipeline(figures: Figures) -> str:
    """The worker's pipeline beside a bare loop."""
    goals = {"": ("at least once", "0.95"), "exactly_once_": ("exactly once", "0.90")}
    rows = [
        (
            name,
            f"{figures[f'{mode}pipeline_records_per_second']:,.0f}",
            f"{figures[f'{mode}raw_records_per_second']:,.0f}",
            f"{figures[f'{mode}pipeline_to_raw']:.2f}",
            goal,
        )
        for mode, (name, goal) in goals.items()
    ]
    sizes = f"{figures['request_bytes']} bytes in, {figures['score_bytes']} out, {figures['candidates']} candidates"
    rounds = len(figures["rounds"]["pipeline"])
    conditions = f"Medians of {rounds} rounds of {figures['records']:,} records; {sizes}; {figures['pinned']}."
    return f"{conditions}\n\n" + table(
        ("delivery", "pipeline, records/s", "bare loop, records/s", "ratio", "goal"), rows
    )


def release(figures: Figures) -> str:
    """What requests cost a release beside a run without one."""
    names = {
        "none": "no release",
        "same_embeddings": "same embeddings",
        "same_embeddings_back": "back",
        "other_embeddings": "other embeddings",
        "other_embeddings_back": "back",
    }
    rows = []
    for run, name in names.items():
        told = figures["runs"][run]
        meanwhile = told.get("meanwhile", told)
        seconds = told.get("seconds_until_served")
        rows.append(
            (
                name,
                "" if run == "none" else "never" if seconds is None else f"{seconds:.1f} s",
                f"{told['requests']}, {told['lost']}, {told['late']}",
                f"{told['p50_ms']:.0f} / {told['p99_ms']:.0f} ms",
                f"{meanwhile['p50_ms']:.0f} / {meanwhile['p99_ms']:.0f} ms",
            )
        )
    asked = f"{figures['rate']:.0f} requests/s of {figures['candidates']:.0f} candidates"
    conditions = f"{asked}, budget {figures['budget_ms']} ms; {figures['pinned']}."
    header = (
        "released",
        "until served",
        "requests, lost, late",
        "latency p50 / p99",
        "the same from promotion until served",
    )
    return f"{conditions}\n\n" + table(header, rows)


def tracing(figures: Figures, overload: Figures) -> str:
    """What traces cost without a model, and what share of the time of a worker with one that is."""
    capacity = overload["capacity_requests_per_second"]
    rows = [
        (
            name,
            f"{figures[f'{key}_us']:.0f}",
            percent(1 - figures[f"{key}_throughput"]),
            percent(figures[f"{key}_us"] / 1e6 * capacity),
            goal,
        )
        for key, name, goal in (("on", "one request in a hundred (default)", "2 %"), ("all", "every request", ""))
    ]
    rounds = len(figures["rounds"]["off"])
    conditions = f"Medians of {rounds} rounds of {figures['records']:,} requests; {figures['pinned']}."
    return f"{conditions}\n\n" + table(
        (
            "traced",
            "µs of processor time per request",
            f"throughput lost without a model ({figures['off_records_per_second']:,.0f} requests/s)",
            f"with the model of the overload benchmark ({capacity:.0f} requests/s at full depth)",
            "goal",
        ),
        rows,
    )


def demo(figures: Figures) -> str:
    """The report at the end of `make demo`."""
    counts = f"{figures['answered']} answered, {figures['lost']} lost, {figures['duplicated']} duplicated"
    baseline = f"running means on the same candidates: {figures['baseline_auc']:.4f}"
    latency = ", ".join(f"{name} {value:.0f} ms" for name, value in figures["latency_ms"].items())
    candidates = figures["candidates"]
    worker = figures["worker"]
    rows = (
        ("requests", f"{figures['requests']} sent, {counts}"),
        (
            "quality",
            f"AUC {figures['auc']:.4f} ({baseline}), log loss {figures['log_loss']:.4f}, {candidates} candidates",
        ),
        ("latency", f"{latency}; within budget {figures['within_budget_share']:.1%}, late {figures['late']}"),
        ("exits by layer", ", ".join(f"{at}: {percent(n / candidates)}" for at, n in figures["exit_layers"].items())),
        ("made by", ", ".join(f"{way} {count}" for way, count in sorted(figures["made_by"].items()))),
        ("token-layers", f"{worker['token_layer_share']:.1%} of full depth executed"),
        (
            "freshness",
            f"event to servable: p50 {worker['freshness_p50_ms']:.0f} ms, p99 {worker['freshness_p99_ms']:.0f} ms",
        ),
        ("time", ", ".join(f"{step} {seconds:.0f} s" for step, seconds in figures["seconds"].items())),
    )
    return table(("Report", ""), rows)


def _auc_and_loss(told: Figures) -> tuple[str, str]:
    return f"{told['auc']:.4f}", f"{told['log_loss']:.4f}"


def _milliseconds(value: float | None) -> str:
    return "none measured" if value is None else f"{value:.0f} ms"
