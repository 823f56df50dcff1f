"""The benchmark of reading, as it is called."""

import re

from experiments import benchmark_data as benchmark
from interestyle_jax.cli import main as interestyle


def test_table_has_a_row_for_each_data_set(make_photos, capsys):
    folder = make_photos([f"p{index}" for index in range(12)])
    argv = [f"--images={folder / 'images'}", f"--masks={folder / 'masks'}", "--workers=0"]
    for encoding in ("jpeg", "png"):
        out = f"--out={folder / encoding}"
        assert interestyle(["data", *argv, out, "--size=16", f"--encoding={encoding}"]) == 0
    capsys.readouterr()
    data = [f"--data={folder / 'jpeg'}", f"--data={folder / 'png'}"]
    assert benchmark.main([*data, "--workers=0", "--seconds=0.2", "--batch-size=4"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0] == "| data | images | KiB each | one core | 0 workers |"
    for row, encoding in zip(rows[2:], ("jpeg", "png"), strict=True):
        found = re.fullmatch(rf"\| {encoding} \({encoding}, 16\) \| 10 \| \d+ \| (.*) \|", row)
        core, pipeline = found[1].split(" | ")
        wall, per_core = re.fullmatch(r"(\d+) \((\d+)\)", pipeline).groups()
        assert min(int(core), int(wall), int(per_core)) > 20


def test_unknown_data_is_one_line(tmp_path, capsys):
    assert benchmark.main([f"--data={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
