"""Status as OpenMetrics: every family once, values as they are, and nothing for what there is not."""

from __future__ import annotations

import re

from controller.model.counters import Counts
from controller.model.desired import DesiredSet
from controller.model.health import HEALTHY, PASSED
from controller.model.snapshot import Commit
from controller.model.status import READY, Condition, ContainerStatus, LastCheckpoint
from controller.report.metrics import metrics
from controller.report.preview import Overview

WELL = Condition(HEALTHY, status=True, reason=PASSED, message="")
RUNS = ContainerStatus(
    "web", "running", 7, True, 2, None, (WELL,), (), counters=Counts(1, 2_500_000, None),
    checkpoint=LastCheckpoint("x", 1_700_000_000_500, 100, 7, 61), verdict=READY,
)  # fmt: skip
ENDED = ContainerStatus("db", "exited", 0, False, 0, 1, (), ())


def test_it_is_what_a_scraper_reads() -> None:
    lines = metrics("default", Overview(DesiredSet(), (ENDED, RUNS), daemon=5)).splitlines()
    assert lines[-1] == "# EOF"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    samples = [line for line in lines if not line.startswith("#")]
    assert all(
        re.fullmatch(r'masu_[a-z_]+\{[a-z]+="[^"]+"(,[a-z]+="[^"]+")?\} [0-9.e+]+', line) for line in samples
    )
    web = {line.partition("{")[0]: line.split()[-1] for line in samples if '"web"' in line}
    assert web["masu_container_running"] == "1"
    assert web["masu_container_restarts_total"] == "2"
    assert web["masu_container_healthy"] == "1"
    assert web["masu_container_cpu_throttled_seconds_total"] == "2.5"
    assert web["masu_container_checkpoint_timestamp_seconds"] == "1700000000.5"
    assert web["masu_container_checkpoint_frozen_seconds"] == "0.061"
    assert web["masu_container_checkpoint_ready"] == "1"
    assert "masu_container_memory_high_total" not in web
    db = {line.partition("{")[0] for line in samples if '"db"' in line}
    assert db.isdisjoint({"masu_container_checkpoint_size_bytes", "masu_container_healthy"})
    assert 'masu_daemon{instance="default"} 1' in lines


def test_the_unit_is_the_end_of_the_name() -> None:
    lines = metrics("default", Overview(DesiredSet(), (RUNS,))).splitlines()
    for _, _, name, unit in (line.split() for line in lines if line.startswith("# UNIT")):
        assert name.endswith(f"_{unit}")


def test_the_revision_of_a_repository_is_a_label() -> None:
    commit = Commit("c" * 40, 'say "no"', 1000)
    text = metrics("default", Overview(DesiredSet("c" * 40, stale="gone", commit=commit, since=2500), ()))
    assert f'masu_revision_timestamp_seconds{{instance="default",revision="{"c" * 40}"}} 2.5' in text
    assert 'masu_source_frozen{instance="default"} 1' in text
    assert "revision" not in metrics("default", Overview(DesiredSet("abc"), ()))
