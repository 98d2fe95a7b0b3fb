"""Disks that fill, turn read-only or lose what was written: one clear line, and nothing that was
good is lost. Slow: real processes, real damage.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.ends import assert_same_end
from tests.end_to_end.launching import (
    ROOT,
    TIMEOUT,
    command,
    environment,
    launch,
    metrics,
    smoke,
)

pytestmark = pytest.mark.slow


def largest_file(checkpoint):
    return max((p for p in checkpoint.rglob("d/*")), key=lambda path: path.stat().st_size)


def truncate(checkpoint):
    os.truncate(largest_file(checkpoint), largest_file(checkpoint).stat().st_size // 2)


def delete(checkpoint):
    largest_file(checkpoint).unlink()


def flip(checkpoint):
    file = largest_file(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty_record(checkpoint):
    (checkpoint / "record" / "metadata").write_text("")


@pytest.mark.parametrize("harm", [truncate, delete, flip, empty_record])
def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(finished, cache, tmp_path, harm):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    harm(workdir / "checkpoints" / "20")
    again = launch("train", *smoke(workdir), cache=cache)
    assert again.returncode == 0, again.stderr
    (line,) = [line for line in again.stderr.splitlines() if " is damaged (" in line]
    assert re.match(r"warning: checkpoint .*/20 is damaged \(.+\): it is kept as 20.corrupt", line)
    assert line.endswith("the run goes on from the one before, step 10")
    assert "Traceback" not in again.stderr and "Exception" not in again.stderr
    assert (workdir / "checkpoints" / "20.corrupt").is_dir()
    assert_same_end(finished, workdir)


def test_an_undamaged_checkpoint_is_taken(finished, cache, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    again = launch("train", *smoke(workdir), cache=cache)
    assert "after step 20 of 20" in again.stderr and " is damaged (" not in again.stderr
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]


def test_when_no_checkpoint_is_sound_the_run_refuses_to_begin_anew(finished, cache, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    for step in ("10", "20"):
        truncate(workdir / "checkpoints" / step)
    before = (workdir / "metrics.jsonl").read_text()
    for _ in range(2):
        refused = launch("train", *smoke(workdir), cache=cache)
        assert refused.returncode == 2
        assert "can be read: step 20: " in refused.stderr.splitlines()[-1]
        assert "restore one from a copy, or remove" in refused.stderr.splitlines()[-1]
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]
    assert (workdir / "metrics.jsonl").read_text() == before


def change(shard):
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize(
    "harm, words",
    [(change, "has changed since it was written; remove"), (Path.unlink, "is missing; remove")],
)
def test_a_changed_or_deleted_data_shard_is_refused(finished, cache, tmp_path, harm, words):
    mine = tmp_path / "cache"
    shutil.copytree(cache / "prepared", mine / "prepared")
    shutil.copytree(finished, tmp_path / "run")
    (prepared,) = json.loads((finished / "data_hashes.json").read_text())
    shard = mine / "prepared" / prepared / "train" / "ids.bin"
    harm(shard)
    refused = launch("train", *smoke(tmp_path / "run"), cache=mine)
    assert refused.returncode == 2
    assert f"error: prepared file {shard} {words} {shard.parents[1]} and run prepare again" in (
        refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert_same_end(finished, tmp_path / "run")


def in_own_mounts(script: str, directory: Path, cache: Path, *overrides: str) -> list[str]:
    """Runs a shell script that may mount, and returns the lines that it writes.

    $TRAIN trains in $RUN, below $DISK; mounts and what is on them end with the script. What is to
    be looked at afterwards is left in $OUT.
    """
    disk = directory / "disk"
    disk.mkdir()
    train = " ".join(command("train", *smoke(disk / "run", *overrides)))
    unshare = ["unshare", "--mount", "--map-root-user", "--pid", "--fork", "--kill-child"]
    unshare += ["bash", "-c"]
    probe = subprocess.run([*unshare, f"mount -t tmpfs none {disk}"], capture_output=True)
    if probe.returncode:
        pytest.skip("no mounting in a namespace of one's own here")
    places = {"OUT": directory, "DISK": disk, "RUN": disk / "run", "TRAIN": train}
    done = subprocess.run(
        [*unshare, script],
        env=environment(cache) | {name: str(place) for name, place in places.items()},
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        cwd=ROOT,
    )
    return done.stdout.splitlines()


WHILE_IT_RUNS = """
    mount -t tmpfs -o size=32m none $DISK
    $TRAIN 2> $OUT/first.txt > /dev/null &
    until [ -d $RUN/checkpoints/20 ]; do kill -0 $! || exit 1; sleep 0.02; done
    %s
    wait $!; echo $?
    ls $RUN/checkpoints > $OUT/left.txt
    %s
    $TRAIN 2> $OUT/last.txt > /dev/null; echo $?
    cp $RUN/metrics.jsonl $OUT; ls $RUN/checkpoints
"""
UNFINISHED = ".orbax-checkpoint-tmp"  # cannot be removed where nothing may be written
LONG = (  # saves are all that it writes between two logs
    "--config.training.steps=300",
    "--config.training.save_every=20",
    "--config.training.eval_every=300",
)


def assert_goes_on_after(words: str, directory: Path) -> None:
    """The run said `words` last, and no trace before; it left good checkpoints alone, and went on
    from the last of them.
    """
    first = (directory / "first.txt").read_text()
    assert "Traceback" not in first and "Event loop" not in first, first
    said = first.splitlines()[-1]
    match = re.fullmatch(
        rf"error: {words} .*/checkpoints; the last good checkpoint is step (\d+); .* start again",
        said,
    )
    assert match, said
    left = [n for n in (directory / "left.txt").read_text().split() if not n.endswith(UNFINISHED)]
    assert left and all(name.isdigit() for name in left) and match[1] == max(left, key=int)
    assert f"after step {match[1]} of 300" in (directory / "last.txt").read_text()
    steps = [line["step"] for line in metrics(directory) if "train/loss" in line]
    assert steps == sorted(set(steps)) and steps[-1] == 300


def test_a_disk_that_fills_during_a_save_is_said_and_the_run_goes_on_when_it_is_freed(
    cache, finished, tmp_path
):
    """What is left free is enough for a line of metrics, and not for a checkpoint."""
    fill = "head -c $(($(df --output=avail -k $DISK | tail -1) - 200))K /dev/zero > $DISK/ballast"
    script = WHILE_IT_RUNS % (fill, "rm $DISK/ballast")
    first, last, *checkpoints = in_own_mounts(script, tmp_path, cache, *LONG)
    assert (first, last) == ("2", "0"), (tmp_path / "first.txt").read_text()
    assert "300" in checkpoints and all(name.isdigit() for name in checkpoints)
    assert_goes_on_after("disk full while saving in", tmp_path)


def test_a_work_directory_that_turns_read_only_is_said_and_nothing_is_overwritten(
    cache, finished, tmp_path
):
    forbid = "mount --bind $RUN $RUN; mount -o remount,bind,ro $RUN"
    allow = "$TRAIN 2> $OUT/refused.txt > /dev/null; echo $?; umount $RUN"
    script = WHILE_IT_RUNS % (forbid, allow)
    first, refused, last, *checkpoints = in_own_mounts(script, tmp_path, cache, *LONG)
    assert (first, refused, last) == ("2", "2", "0"), (tmp_path / "first.txt").read_text()
    assert "300" in checkpoints and all(name.isdigit() for name in checkpoints)
    *_, said = (tmp_path / "refused.txt").read_text().splitlines()
    assert re.fullmatch(r"error: work directory .* cannot be written: .* is read-only; .*", said)
    assert_goes_on_after("read-only file system while saving in", tmp_path)
