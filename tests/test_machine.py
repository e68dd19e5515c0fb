"""What fastrnn finds of the machine: quotas of CPU time, threads and where their number is from, interpreters."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from process_cases import run_python

import fastrnn


def test_show_config_prints_what_it_returns(capsys):
    config = fastrnn.show_config()
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["fastrnn"].strip() == config["version"] == fastrnn.__version__
    assert lines["threads"].strip() == str(config["num_threads"])
    assert lines["threads from"].strip() == config["num_threads_from"]
    json.dumps(config)


def test_a_second_interpreter_is_told_so():
    interpreters = pytest.importorskip("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
    if sys.version_info >= (3, 12):
        pytest.skip("the interface has changed")
    del interpreters
    code = (
        "import warnings, fastrnn, _xxsubinterpreters as interpreters\n"
        "interpreters.run_string(interpreters.create(), '''\n"
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "try: import fastrnn\nexcept ImportError as error: print(error)''')"
    )
    done = run_python("-c", code)
    assert "sub-interpreters are not supported" in done.stdout, done.stderr
    assert "pip install" not in done.stdout


def control_group(root, version, path, files, *, mount_root="/"):
    """What a process sees in /proc/self and in the mounted groups: files {folder within the mount: {name: content}}."""
    mount = root / "sys fs" / f"v{version}"
    for folder, contents in files.items():
        (mount / folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (mount / folder / name).write_text(content)
    escaped = str(mount).replace(" ", "\\040")
    kind = {1: "cgroup cgroup rw,cpu,cpuacct", 2: "cgroup2 cgroup rw,nsdelegate"}[version]
    (root / "self").mkdir(exist_ok=True)
    with open(root / "self" / "mountinfo", "a") as file:
        file.write(
            f"22 27 0:21 / /proc rw,relatime - proc proc rw\n31 29 0:28 {mount_root} {escaped} rw shared:9 - {kind}\n"
        )
    with open(root / "self" / "cgroup", "a") as file:
        file.write(f"4:memory:/elsewhere\n{'1:cpu,cpuacct' if version == 1 else '0:'}:{path}\n")
    return str(root / "self"), str(mount)


@pytest.mark.parametrize(
    "version, path, files, options, cpus",
    [
        (2, "/", {".": {}}, {}, None),
        (2, "/a", {"a": {"cpu.max": "max 100000\n"}}, {}, None),
        (2, "/a", {"a": {"cpu.max": "150000 100000\n"}}, {}, 1.5),
        (2, "/a/b", {"a": {"cpu.max": "50000 100000\n"}, "a/b": {"cpu.max": "300000 100000\n"}}, {}, 0.5),
        (2, "/a/b/c", {"a": {"cpu.max": "max 100000\n"}, "a/b": {"cpu.max": "7000 1000\n"}, "a/b/c": {}}, {}, 7),
        (1, "/", {".": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}}, {}, None),
        (1, "/a", {"a": {"cpu.cfs_quota_us": "220000\n", "cpu.cfs_period_us": "100000\n"}}, {}, 2.2),
        # A container that sees its own group as the top, and the path that it has outside.
        (
            1,
            "/docker/0f",
            {".": {"cpu.cfs_quota_us": "20000\n", "cpu.cfs_period_us": "50000\n"}},
            {"mount_root": "/docker/0f"},
            0.4,
        ),
        (2, "/../x", {".": {"cpu.max": "200000 100000\n"}}, {"mount_root": "/docker/0f"}, 2),
        (2, "/a", {"a": {"cpu.max": "nonsense\n"}}, {}, None),
    ],
)
def test_a_quota_of_cpu_time_is_found(tmp_path, version, path, files, options, cpus):
    from fastrnn._cgroup import cpu_quota

    process, mount = control_group(tmp_path, version, path, files, **options)
    quota = cpu_quota(process)
    assert (quota and quota.cpus) == cpus
    if quota:
        assert quota.threads() == max(1, -int(-cpus // 1))
        assert quota.file.startswith(mount) and Path(quota.file).exists()


def test_both_versions_at_once_and_none(tmp_path):
    from fastrnn._cgroup import cpu_quota

    assert cpu_quota(str(tmp_path)) is None
    process, _ = control_group(tmp_path, 2, "/a", {"a": {"cpu.max": "300000 100000\n"}})
    control_group(tmp_path, 1, "/b", {"b": {"cpu.cfs_quota_us": "120000\n", "cpu.cfs_period_us": "100000\n"}})
    quota = cpu_quota(process)
    assert quota is not None and quota.cpus == 1.2 and quota.threads() == 2


def test_the_number_of_threads_says_where_it_is_from(monkeypatch):
    from fastrnn import _native, runtime
    from fastrnn._cgroup import Quota

    before = fastrnn.get_num_threads(), runtime._default_threads
    try:
        monkeypatch.delenv("FASTRNN_NUM_THREADS", raising=False)
        _native.set_num_threads(8)
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(1.5, "/sys/fs/cgroup/a/cpu.max"))
        runtime.bound_threads()
        assert fastrnn.get_num_threads() == 2
        assert runtime.config()["num_threads_from"] == "a quota of 1.5 CPUs in /sys/fs/cgroup/a/cpu.max"
        fastrnn.set_num_threads(5)
        assert runtime.config()["num_threads_from"] == "a call of set_num_threads or threadpoolctl"
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(64.0, "f"))
        runtime.bound_threads()  # more than there are
        assert fastrnn.get_num_threads() == 5
        assert runtime.config()["num_threads_from"] == "the CPUs that this process may run on: 5"
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(1.0, "f"))
        monkeypatch.setenv("FASTRNN_NUM_THREADS", "5")
        runtime.bound_threads()
        assert fastrnn.get_num_threads() == 5
        assert runtime.config()["num_threads_from"] == "the environment variable FASTRNN_NUM_THREADS"
    finally:
        fastrnn.set_num_threads(before[0])
        runtime._default_threads = before[1]
