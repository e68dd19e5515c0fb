"""The command in a process of its own: closed pipes, no stdout, full disks, wrong environments."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from process_cases import environment, run_command, run_python

DEMO = ["demo", "--epochs", "1", "--hidden-size", "4", "--no-progress"]


@pytest.mark.parametrize("arguments", [["info"], ["--version"], ["--help"], DEMO], ids=lambda a: a[0])
def test_a_closed_pipe_is_quiet(arguments, tmp_path):
    if arguments is DEMO:
        arguments = [*arguments, "--output", str(tmp_path)]
    read, write = os.pipe()
    os.close(read)
    done = run_command(*arguments, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_stdout(tmp_path):
    script = f'exec "{sys.executable}" -m fastrnn "$@" >&-'
    for arguments in (["info"], [*DEMO, "--output", str(tmp_path)]):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *arguments],
            cwd="/",
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    for arguments in (["info"], [*DEMO, "--output", str(tmp_path)]):
        with open("/dev/full", "w") as full:
            done = run_command(*arguments, stdout=full)
        assert done.returncode == 2
        assert done.stderr == f"fastrnn {arguments[0]}: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("variable", ["FASTRNN_ISA", "FASTRNN_NUM_THREADS"])
def test_a_wrong_environment_ends_the_command_and_no_program_that_imports(tmp_path, variable):
    said = f"environment variable {variable}: "
    wrong = {variable: "many"}
    done = run_command("info", **wrong)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fastrnn: error: {said}") and done.stderr.count("\n") == 1
    program = "try:\n    import fastrnn\nexcept RuntimeError as error:\n    print('caught', error)\n"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(program)
    (tmp_path / "package" / "__main__.py").write_text("")
    (tmp_path / "fastrnn.d").mkdir()
    (tmp_path / "fastrnn.d" / "fastrnn").write_text(program)  # a program of this name, no script of pip's
    for arguments in (["-c", program], ["-m", "package", "fastrnn"], [str(tmp_path / "fastrnn.d" / "fastrnn")]):
        done = run_python(*arguments, cwd=tmp_path, **wrong)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout.startswith(f"caught {said}"), arguments


def test_the_script_that_pip_makes_is_the_command(tmp_path):
    script = tmp_path / "fastrnn"
    script.write_text("import sys\nfrom fastrnn.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    done = run_python(script, "info", FASTRNN_ISA="foo")
    assert done.returncode == 2 and done.stderr.startswith("fastrnn: error: environment variable FASTRNN_ISA: ")
