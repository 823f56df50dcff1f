"""Table 1: its configs' rows, its arithmetic, and its script with methods on tiny networks."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import figure_6, optimised_rows, table_1, trainings
from experiments.optimised_rows import paired, preset_of, write_inputs
from experiments.table_1_summary import PAPER, PAPER_METRICS, summarize
from interestyle_jax.cli import main
from interestyle_jax.config.files import load_config, read_config
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.metrics import load_distance
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.optimisation import recipes
from interestyle_jax.inversion.optimisation.recipes import Phase, Recipe, Terms
from interestyle_jax.jobs.inversions import invert_files
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.optimisations import optimise_files

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
COUNT = 5
# In the places of Image2StyleGAN and PTI: no VGG16 at 32 pixels.
PIXEL = Terms(pixel=1.0)
WIDE = Recipe("image2stylegan", "", (Phase(("w_plus",), 3, 0.05, PIXEL),))
TUNED = Recipe("pti", "", (*WIDE.phases, Phase(("generator",), 2, 3e-3, PIXEL)), batch_size=1)


def test_a_row_is_the_demo_with_another_preset_and_the_ablations_run_where_that_is_one():
    demo = load_config(str(CONFIGS / "demo.py"))
    demo.single_pass_until = 0.0
    rows = {row: load_config(f"{CONFIGS / 'table_1_avatars.py'}:{row}") for row in table_1.ROWS}
    assert rows["interestyle"] == demo
    ablation = load_config(f"{CONFIGS / 'ablation_avatars.py'}:restyle")
    assert rows["restyle_psp"].to_json() == ablation.to_json()
    assert rows["idinvert"] == load_config(str(CONFIGS / "idinvert_avatars.py"))
    for row, config in rows.items():
        assert config.preset == row
        same = ("num_steps", "batch_size", "optimizer", "data", "weights")
        assert all(config[name] == demo[name] for name in same)
    assert rows["e4e"].progressive.start == 600 and rows["psp"].method.num_iterations == 1


def entry(value, seconds=0.1):
    both = {"l2": value, "lpips": value}
    parts = dict.fromkeys(("interest", "face", "whole", "leakage"), both)
    rest = {"id_similarity": None, "latent_variance": [1.0, value]}
    return {**parts, **rest, "seconds_per_image": seconds}


def test_intere_style_is_compared_with_each_row_as_the_paper_has_it():
    measured = {
        "psp": [entry(0.5), entry(0.6), entry(0.7)],
        "interestyle": [entry(0.4), entry(0.501), entry(0.599)],
        "pti": [entry(0.2)],
    }
    summary = summarize(measured, dict.fromkeys(measured, "x"), {})
    found = summary["pairs"]["psp"]["face_lpips"]
    expected = stats.ttest_rel([0.4, 0.501, 0.599], [0.5, 0.6, 0.7])
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["order"], found["paper"], found["finding"]) == (-1, -1, "reproduced")
    assert summary["rows"]["pti"]["whole_lpips"]["se"] is None
    assert summary["rows"]["pti"]["id_similarity"] is None
    assert summary["rows"]["psp"]["latent_variance"]["mean"] == pytest.approx(0.6)
    # Higher is better: 0.68 of IntereStyle improves on ReStyle's 0.65.
    better = {**entry(0.4), "id_similarity": 0.7}, {**entry(0.4), "id_similarity": 0.6}
    both = {"interestyle": [better[0]] * 2, "restyle_psp": [better[1]] * 2}
    found = summarize(both, both, {})["pairs"]["restyle_psp"]["id_similarity"]
    assert (found["order"], found["paper"], found["finding"]) == (-1, -1, "reproduced")


def test_the_papers_figures_are_as_printed():
    paper = (ROOT.parent / "shared" / "paper").glob("*.txt")
    text = "\n".join(path.read_text(encoding="utf-8") for path in paper)
    if not text:
        assert len(PAPER) == 6
        return
    lines = [line.split() for line in text.splitlines()]
    order = ("idinvert", "psp", "e4e", "restyle_psp", "restyle_e4e", "interestyle")
    for name, metrics in (("L_2", ("interest_l2", "face_l2")), ("LPIPS", PAPER_METRICS[2:4])):
        (own,) = [words for words in lines if words[:1] == [name] and len(words) == 13]
        printed = np.array(own[1:], float).reshape(6, 2)
        ours = [[PAPER[row][PAPER_METRICS.index(m)] for m in metrics] for row in order]
        np.testing.assert_array_equal(printed, ours)
    (own,) = [words for words in lines if words[:2] == ["ID", "Similarity"] and len(words) == 8]
    assert [float(x) for x in own[2:]] == [PAPER[row][4] for row in order]


def test_paired_tests_are_scipys():
    random = np.random.default_rng(0)
    whole = random.uniform(size=20)
    masked = whole - 0.1 + 0.05 * random.normal(size=20)
    found = paired(masked, whole)
    assert found["p_t"] == pytest.approx(stats.ttest_rel(masked, whole).pvalue)
    assert found["p_wilcoxon"] == pytest.approx(stats.wilcoxon(masked, whole).pvalue)
    assert found["mean"] == pytest.approx((masked - whole).mean()) and found["n"] == 20
    assert paired(whole, whole)["p_t"] == 1.0


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_weights):
    """Avatars, and presets whose terms need no network."""
    folder = tmp_path_factory.mktemp("table")
    data = write_avatars(folder / "avatars", sizes={"test": COUNT}, size=32, seed=3, workers=0)
    with pytest.MonkeyPatch.context() as patch:
        presets = {**recipes.PRESETS, "image2stylegan": WIDE, "pti": TUNED}
        patch.setattr(recipes, "PRESETS", presets)
        patch.setattr(optimised_rows, "PRESETS", presets)
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        patch.setattr(trainings, "interestyle", in_process)
        yield data, str(tiny_weights / "inverter")


def in_process(*words):
    """The command line, without another process."""
    return main(list(words))


@pytest.fixture
def scripted(monkeypatch):
    """The scripts whose trainings, inversions and measurements are numbers given here."""
    called = []

    def evaluated(weights, out, options, *, what):
        called.append(("evaluate", dict(weights), options))
        encoders = {row: entry(0.3 + 0.01 * len(row)) for row in weights}
        out.mkdir(parents=True)
        metrics = {"num_images": COUNT, "mean_latent": {}, "encoders": encoders}
        (out / "metrics.json").write_text(json.dumps(metrics))
        return metrics

    def trained(config, workdir, overrides, *, runs):
        called.append(("train", config.rpartition(":")[2], overrides))
        return workdir

    def run(method, weights, inputs, out, **options):
        called.append(("run", method, str(weights), options))
        return {"seconds_per_image": 2.0, "num_steps": 3.0, "noise": False, "tuned": False}

    def measured(out, *_, **options):
        low = "interest" in str(out)
        value = np.linspace(0.1, 0.2, COUNT) - low * np.linspace(0.05, 0.06, COUNT)
        names = ("interest", "face", "whole", "leakage")
        values = {f"{part}/{name}": value for part in names for name in ("l2", "lpips")}
        return values | {"latent_variance": value}

    for name, function in (
        ("evaluate", evaluated),
        ("train", trained),
        ("run_method", run),
        ("measure_method", measured),
        ("write_inputs", lambda *_: COUNT),
        ("load", lambda _: SimpleNamespace(input_shape=(8, 8))),
        ("load_distance", lambda _: None),
    ):
        monkeypatch.setattr(table_1, name, function)
    return called


def test_the_script_trains_measures_and_compares(scripted, tmp_path, capsys):
    out = tmp_path / "out"
    words = [f"--data={tmp_path}", f"--out={out}", "--seeds=4,7", "--steps=300", "--vgg=V"]
    words += ["--weights=e4e=E", "--rows=idinvert,e4e,interestyle", "--generator=G"]
    words += ["--methods=idinvert,ii2s,ii2s-interest", "--num-samples=5", "--config.log_every=9"]
    assert table_1.main(words) == 0
    trained = [call[1:] for call in scripted if call[0] == "train"]
    assert [row for row, _ in trained] == ["idinvert", "interestyle"] * 2
    for _, overrides in trained:
        wanted = {"--config.weights.generator=G", "--config.num_steps=300", "--config.log_every=9"}
        assert wanted <= set(overrides)
    first, second = (call[1:] for call in scripted if call[0] == "evaluate")
    # Weights that are given are measured once.
    assert list(first[0]) == ["idinvert", "e4e", "interestyle"] and first[0]["e4e"] == "E"
    assert list(second[0]) == ["idinvert", "interestyle"]
    assert "--num-samples=5" in first[1] and "--split=test" in first[1]
    runs = {call[1]: call[2:] for call in scripted if call[0] == "run"}
    own = {method: Path(weights).parent.name for method, (weights, _) in runs.items()}
    ours = "interestyle_seed4"
    assert own == {"idinvert": "idinvert_seed4", "ii2s": ours, "ii2s-interest": ours}
    assert runs["ii2s"][1] == {"lpips": ["V"], "num_steps": None}
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["rows"]["ii2s"]["leakage_lpips"]["mean"] == pytest.approx(0.15)
    assert len(summary["rows"]["interestyle"]["leakage_l2"]["values"]) == 2
    assert list(summary["pairs"]) == ["idinvert"]
    assert len(summary["rows"]["idinvert"]["face_l2"]["values"]) == 2
    assert len(summary["rows"]["idinvert-optimised"]["face_l2"]["values"]) == 1
    (tests,) = summary["interest_masks"].values()
    assert tests["leakage/lpips"]["mean"] == pytest.approx(-0.055)
    assert tests["leakage/lpips"]["p_t"] < 0.05
    text = (out / "table.md").read_text()
    for said in ("II2S, interest masks", "IDInvert (StyleGAN1)", "0.075", "p (Wilcoxon)", words[0]):
        assert said in text
    assert (out / "trade_off.png").stat().st_size > 5000


def test_seeds_and_methods_of_an_earlier_call_are_joined(scripted, tmp_path, capsys):
    shared = [f"--data={tmp_path}", "--steps=300", "--vgg=V", "--rows=psp,interestyle"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert table_1.main([*shared, f"--out={first}", "--seeds=4,7", "--methods=ii2s"]) == 0
    one = json.loads((first / "metrics.json").read_text())
    more = [*shared, f"--out={second}", f"--earlier={first}", "--methods="]
    assert table_1.main([*more, "--seeds=8"]) == 0
    both = json.loads((second / "metrics.json").read_text())
    assert both["setting"]["seeds"] == [4, 7, 8]
    values = both["rows"]["psp"]["face_l2"]["values"]
    assert values == [*one["rows"]["psp"]["face_l2"]["values"], values[2]]
    assert both["rows"]["ii2s"] == one["rows"]["ii2s"]
    assert both["pairs"]["psp"]["face_l2"]["se"] is not None
    text = (second / "table.md").read_text()
    assert f"`{one['setting']['command']}`" in text and "seeds 4, 7, 8" in text and "II2S" in text
    scripted.clear()
    for changed, said in (
        ("--seeds=7", "seed 7 already"),
        ("--seeds=9 --steps=200", "steps 300"),
        ("--seeds=9 --rows=psp", "trained"),
        ("--seeds=9 --config.log_every=3", "overrides"),
        (f"--seeds=9 --earlier={tmp_path / 'none'}", "is no file"),
        (f"--seeds=9 --earlier={first / 'table.md'}", "table.md"),
    ):
        assert table_1.main([*more, *changed.split()]) == 2
        assert said in capsys.readouterr().err
    assert not scripted


@pytest.fixture(scope="module")
def table(world, tmp_path_factory):
    """The script's folder, of given weights and all kinds of methods."""
    data, weights = world
    out = tmp_path_factory.mktemp("out") / "table"
    words = [f"--data={data}", f"--out={out}", f"--weights=interestyle={weights}"]
    words += ["--rows=interestyle", "--vgg=lpips_alex"]
    words += ["--methods=image2stylegan,image2stylegan-interest,pti"]
    assert table_1.main(words) == 0
    return out, words


@pytest.mark.slow
def test_the_script_measures_methods_as_encoders(table, world):
    out, words = table
    data, weights = world
    summary = json.loads((out / "metrics.json").read_text())
    rows = summary["rows"]
    assert list(rows) == ["interestyle", "image2stylegan", "image2stylegan-interest", "pti"]
    for metric in ("whole_lpips", "leakage_lpips", "latent_variance", "seconds_per_image"):
        assert all(row[metric]["mean"] > 0 for row in rows.values())
    assert all(row["id_similarity"] is None for row in rows.values())
    # The encoder's own inversions, measured as a method's, are what `evaluate` says of them.
    inversions = out.parent / "again"
    write_inputs(data, "test", None, out.parent / "inputs")
    for images in ("images", "clean"):
        invert_files(weights, out.parent / "inputs" / images, inversions / images)
    values = optimised_rows.measure_method(
        inversions, data, split="test", count=COUNT, shape=(32, 32),
        lpips=load_distance("lpips_alex"), model=load(weights),
    )  # fmt: skip
    again = optimised_rows.as_encoder(values, 1.0, (32, 32), str(data))
    measured = json.loads((out / "evaluation/seed0/metrics.json").read_text())
    (first,) = measured["encoders"].values()
    for region in ("interest", "face", "whole", "leakage"):
        for name in ("l2", "lpips"):
            assert again[region][name] == pytest.approx(first[region][name], rel=1e-3)
    assert again["latent_variance"][0] == pytest.approx(first["latent_variance"][-1], rel=1e-5)
    assert again["psnr"] == pytest.approx(first["psnr"], rel=1e-3)
    assert again["nscd"] == pytest.approx(first["nscd"], rel=1e-4)
    assert rows["image2stylegan"]["nscd"]["mean"] > 0 and rows["pti"]["nscd"] is None


@pytest.mark.slow
def test_masks_are_compared_by_image_and_the_table_says_all(table):
    out, words = table
    summary = json.loads((out / "metrics.json").read_text())
    tests = summary["interest_masks"]["image2stylegan"]
    assert set(tests) == {"interest/lpips", "leakage/lpips", "leakage/l2"}
    assert all(test["n"] == COUNT and 0 <= test["p_t"] <= 1 for test in tests.values())
    text = (out / "table.md").read_text()
    for said in ("Image2StyleGAN, interest masks", "PTI", "0.075", "p (Wilcoxon)", words[0]):
        assert said in text
    assert summary["setting"]["methods"]["pti"]["tuned"]
    assert (out / "trade_off.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_data_sets_own_masks_are_those_of_files(table, world):
    data, weights = world
    options = {"method": "image2stylegan", "interest": "dataset"}
    optimise_files(weights, data, table[0].parent / "dataset", **options)
    found = LatentFile(table[0].parent / "dataset")
    files = LatentFile(table[0] / "methods/image2stylegan-interest/images")
    assert len(found.names) == COUNT
    for i, name in enumerate(files.names):
        np.testing.assert_array_equal(found[str(i)], files[name])


@pytest.mark.slow
def test_what_is_done_is_not_done_again(table, monkeypatch):
    out, words = table

    def none(*words):
        raise AssertionError(words)

    monkeypatch.setattr(trainings, "interestyle", none)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*/*/*.png")}
    assert table_1.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*/*/*.png")} == before


def test_runs_of_the_same_config_are_taken(tmp_path):
    config = f"{CONFIGS / 'table_1_avatars.py'}:restyle_psp"
    overrides = [f"--config.data.dir={tmp_path / 'data'}", "--config.num_steps=7"]
    of_ablation = read_config(f"{CONFIGS / 'ablation_avatars.py'}:restyle", overrides=overrides)
    run = tmp_path / "ablation" / "restyle_seed0"
    (run / "weights").mkdir(parents=True)
    (run / "weights/metadata.json").write_text("{}")
    (run / "config.json").write_text(of_ablation.to_json())
    report = {"status": "completed", "last_step": 7}
    (run / "report.json").write_text(json.dumps(report))
    runs = [tmp_path / "ablation"]
    assert trainings.train(config, tmp_path / "new", overrides, runs=runs) == run

    def trains(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainings, "interestyle", lambda *words: 3)
            with pytest.raises(trainings.CommandFailedError):
                trainings.train(config, tmp_path / "new", [*overrides, *more], runs=runs)

    trains("--config.seed=1")
    trains("--config.checkpoint_every=100")
    trains(f"--config.data.dir={tmp_path / 'other'}")
    trains("--config.weights.generator=other")
    (run / "report.json").write_text(json.dumps({**report, "last_step": 6}))
    trains()


def test_the_smallest_size(tmp_path, monkeypatch):
    called = []

    def fails(*words):
        called.append(words)
        return 3

    monkeypatch.setattr(trainings, "interestyle", fails)
    words = [f"--data={tmp_path}", f"--out={tmp_path / 'out'}", "--methods=", "--smoke"]
    assert table_1.main([*words, "--rows=e4e"]) == 3
    assert f"--config={table_1.CONFIG}:e4e,smoke" in called[0]
    assert {"--config.num_steps=2", "--config.progressive.start=1"} <= set(called[0])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--rows=stylegan", "stylegan"),
        ("--methods=image3stylegan", "image3stylegan"),
        ("--weights=psp", "ROW=DIR"),
        ("--methods=image2stylegan", "--vgg"),
    ],
)
def test_bad_usage(tmp_path, capsys, word, said):
    assert table_1.main([f"--data={tmp_path}", f"--out={tmp_path / 'out'}", word]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_methods_have_names():
    assert preset_of("pti-interest") == ("pti", True) and preset_of("pti") == ("pti", False)
    assert optimised_rows.LABELS.keys() == recipes.PRESETS.keys()
    with pytest.raises(InputError, match="expected one of projector-w"):
        preset_of("sgd")


@pytest.mark.slow
def test_figure_6_is_drawn_and_timed(world, tmp_path, monkeypatch):
    data, weights = world
    out = tmp_path / "out"
    words = [f"--data={data}", f"--out={out}", f"--weights={weights}", "--vgg=lpips_alex"]
    words += ["--methods=image2stylegan", "--timed-steps=4", "--timed-images=5"]
    monkeypatch.setattr(figure_6, "chosen", lambda avatars, rows: [0, 1])
    assert figure_6.main([*words, "--num-samples=5"]) == 0
    summary = json.loads((out / "figure_6.json").read_text())
    labels = ["IntereStyle", "Image2StyleGAN", "Image2StyleGAN, interest masks"]
    assert list(summary["rows"]) == labels
    timed = summary["timing"]
    seconds = [timed[name]["seconds_per_image"] for name in ("image2stylegan", "encoder")]
    assert timed["ratio"] == pytest.approx(seconds[0] / seconds[1])
    assert timed["image2stylegan"]["num_steps"] == 4 and len(timed["encoder"]["calls"]) == 10
    assert 0 <= summary["interest_masks"]["image2stylegan"]["leakage/lpips"]["p_t"] <= 1
    assert "the paper: more than 200" in (out / "table.md").read_text()
    assert (out / "obstacles.png").is_file()
