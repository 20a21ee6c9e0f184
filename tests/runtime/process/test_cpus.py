"""CPU quota and thread counts."""

from __future__ import annotations

import pytest

from runtime.process.cpus import available_cpus, set_thread_counts


def write(folder, files):
    """A control group's files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "50000 100000\n"},
        {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ],
    ids=["v2", "v1"],
)
def test_the_containers_quota_bounds_the_cpus(tmp_path, files):
    """Half a CPU of quota is half a CPU, in both versions of control groups."""
    assert available_cpus(write(tmp_path, files)) == 0.5


@pytest.mark.parametrize(
    "files",
    [{}, {"cpu.max": "max 100000\n"}, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}],
    ids=["none", "v2 without limit", "v1 without limit"],
)
def test_without_a_quota_the_affinity_counts(tmp_path, files):
    """No quota means as many CPUs as the process may run on."""
    assert available_cpus(write(tmp_path, files)) >= 1


def test_threads_that_wait_for_each_other_sleep():
    """Unless the user wants them to keep their CPUs."""
    environ, own = {}, {"OMP_WAIT_POLICY": "active"}
    set_thread_counts(2, environ, imported=["json"])
    set_thread_counts(2, own, imported=["json"])
    assert environ["OMP_WAIT_POLICY"] == "passive"
    assert own["OMP_WAIT_POLICY"] == "active"


def test_thread_counts_are_set_but_the_users_own_stay():
    """A variable that the user has set is not overwritten."""
    environ = {"OMP_NUM_THREADS": "7"}
    assert set_thread_counts(3, environ, imported=["json"]) == 3
    assert environ["OMP_NUM_THREADS"] == "7"
    assert environ["NUMBA_NUM_THREADS"] == "3"


def test_setting_them_too_late_is_a_mistake():
    """Libraries that read the variables at import must not be imported yet."""
    with pytest.raises(RuntimeError, match="before torch"):
        set_thread_counts(1, {}, imported=["torch"])
