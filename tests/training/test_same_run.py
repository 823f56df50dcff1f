"""Whether a run that is resumed is the one that was begun."""

import json

import pytest

from interestyle_jax.config.presets import encoder_config, generator_config
from interestyle_jax.errors import InputError
from interestyle_jax.training.same_run import (
    check_same_run,
    check_same_weights,
    read_saved_config,
    with_older_fields,
)


def begun_without(config, workdir, *names):
    """A run's directory as a version without some fields would have left it."""
    saved = json.loads(config.to_json())
    for name in names:
        *groups, field = name.split(".")
        section = saved
        for group in groups:
            section = section[group]
        del section[field]
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(saved))
    return saved


def test_an_older_run_goes_on_with_a_new_fields_default(tmp_path):
    config = encoder_config("restyle_e4e").lock()
    workdir = tmp_path / "run"
    saved = begun_without(config, workdir, "image_shape", "adversary", "log_every", "mesh")
    config.adversary.r1_every = 4
    own, notices = with_older_fields(config, workdir)
    assert own.adversary.r1_every == 16 and config.adversary.r1_every == 4
    told = {notice.split(":")[0]: notice for notice in notices}
    assert told["config.image_shape"] == (
        f"config.image_shape: {workdir} was begun before this field existed; continuing with its "
        "default []"
    )
    assert told["config.adversary.r1_every"].endswith("default 16, not with 4")
    # Defaults are the preset's, and what may change at any time is not worth a line.
    assert told["config.adversary.weight"].endswith("default 0.1")
    assert not any(name.startswith(("config.mesh", "config.log_every")) for name in told)
    check_same_run(saved, json.loads(own.to_json()), workdir)
    with pytest.raises(InputError, match="config.adversary.r1_every: .* begun with 16, now it is"):
        check_same_run(saved, json.loads(config.to_json()), workdir)


def test_a_run_of_this_version_keeps_its_config(tmp_path):
    config = generator_config().lock()
    assert with_older_fields(config, tmp_path / "none") == (config, [])
    begun_without(config, tmp_path / "run")
    config.batch_size = 4
    own, notices = with_older_fields(config, tmp_path / "run")
    assert own == config and notices == []


def test_how_a_generator_is_computed_may_change(tmp_path):
    """Also where an earlier version wrote it by its older name."""
    config = generator_config().lock()
    saved = begun_without(config, tmp_path / "run", "generator.form")
    saved["generator"]["up_form"] = "separable"
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    own, notices = with_older_fields(config, tmp_path / "run")
    assert own == config and notices == []
    read = read_saved_config(tmp_path / "run")
    assert read["generator"]["form"] == "separable"
    check_same_run(read, json.loads(own.to_json()), tmp_path / "run")


def test_an_option_without_a_default_is_still_another_run(tmp_path):
    config = encoder_config()
    saved = begun_without(config, tmp_path / "run")
    config.optimizer.b2 = 0.99
    own, notices = with_older_fields(config, tmp_path / "run")
    assert notices == []
    with pytest.raises(InputError, match=r"config.optimizer.b2: .* begun with None, now it is"):
        check_same_run(saved, json.loads(own.to_json()), tmp_path / "run")


def test_weights_are_compared_by_content(tmp_path):
    meta = {"weights": {"generator": "a", "lpips": "b"}, "config": {}}
    facts = {"step": 6, "workdir": tmp_path}
    moved = {"weights": {"generator": "elsewhere", "lpips": "x", "id": ""}}
    check_same_weights(meta, {"generator": "a", "lpips": "b"}, moved, **facts)
    with pytest.raises(InputError, match="config.weights.generator: 'elsewhere' is not what .* 6"):
        check_same_weights(meta, {"generator": "c", "lpips": "b"}, moved, **facts)
    with pytest.raises(InputError, match="config.weights.lpips: "):
        check_same_weights(meta, {"generator": "a"}, moved, **facts)
    with pytest.raises(InputError, match="config.weights.id: "):
        check_same_weights(meta, {"generator": "a", "lpips": "b", "id": "d"}, moved, **facts)


def test_weights_of_earlier_versions_are_compared_by_name(tmp_path):
    meta = {"weights_fingerprint": "of a computed image", "config": {"weights": {"id": "x"}}}
    facts = {"step": 6, "workdir": tmp_path}
    check_same_weights(meta, {"id": "a"}, {"weights": {"id": "x", "new": ""}}, **facts)
    with pytest.raises(InputError, match="config.weights.id: 'y' is not what"):
        check_same_weights(meta, {"id": "a"}, {"weights": {"id": "y"}}, **facts)
