"""The job behind `interestyle evaluate`: encoders measured on a data set or a folder of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from interestyle_jax.evaluation.boundary import load_parser
from interestyle_jax.evaluation.fid import LPIPS
from interestyle_jax.evaluation.identity import identity_options, load_identity
from interestyle_jax.evaluation.metrics import load_distance
from interestyle_jax.evaluation.results import encoder_names
from interestyle_jax.inversion.inverter import load
from interestyle_jax.jobs.edited_inversions import EditedInversions
from interestyle_jax.jobs.evaluation_job import EvaluationJob
from interestyle_jax.jobs.feature_sets import load_feature_sets
from interestyle_jax.jobs.job import RunOptions
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.samples import Samples
from interestyle_jax.json_file import read_json
from interestyle_jax.one_line import print_notice
from interestyle_jax.parallel.sharding import local_mesh
from interestyle_jax.weights import digest


def evaluate(
    weights: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    batch_size: int | None = None,
    num_samples: int | None = None,
    split: str = "test",
    names: Sequence[str] | None = None,
    num_iterations: int | None = None,
    lpips: str | Path = "lpips_alex",
    dtype: str = "float32",
    identity: str | Path | None = None,
    face_detector: str | Path | None = None,
    fid_weights: str | Path | None = None,
    fid_mode: str = "clean",
    fid_statistics: str | Path | None = None,
    edits: Sequence[str] = (),
    edit_statistics: str | Path | None = None,
    other_generator: bool = False,
    parser: str | None = None,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Measures encoders on a data set, on all devices of this process. Draws nothing at random.

    As the official scripts do, 8-bit images are measured at the encoder's input size (256 for
    official models): inversions are clipped and rounded as if saved, then they, the images and
    the masks are resized by PIL's bilinear filter. Cars are measured at 192 x 256, not squeezed.
    Regions are the *visible* parts, undilated: `interest_mask` and `face_mask` of the data set, not
    the dilated masks of training. Without masks only the whole image is measured; without clean
    images there is no leakage. What was not measured is null.

    Writes `metrics.json`, `table.md`, `figures/` and `report.json` when all images are measured.
    The same call continues after a stop, see `run_job`; means are taken over the images in their
    order, and depend on no stop and no shard. `seconds_per_image` is the median over the batches
    that were timed, up to NUM_TIMED of each process.

    Args:
      weights: names or directories of weights with a generator, an encoder and w_avg.
      data: a TFDS data set directory, or a folder of images (no masks).
      out: folder, made where missing.
      batch_size: images a compiled call, raised to a multiple of the devices; None: 16 a device,
        and the figures are the same bits on any number of devices.
      num_samples: only the first ones, or None for all.
      split: split of the data set.
      names: the encoders' names in the results; by default their directories'.
      num_iterations: N of iterative encoders (None: 5); encoders that see the image alone run once.
      lpips: name or directory of the LPIPS weights.
      dtype: type of the encoders' and generators' maps, as in `load`.
      identity: weights with the embedder of the ID metric (CurricularFace officially), or None.
      face_detector: "mtcnn" weights, which go with `identity`; "none" compares whole images.
      fid_weights: Inception-v3 ("inception" weights; a CLIP for mode "clip"), or None: no FID. Mode
        "lpips" takes `lpips` without them.
      fid_mode: one of `evaluation.fid.MODES`.
      fid_statistics: what an earlier call wrote as `fid_statistics.npz`, of the same mode and
        weights, to compare with; None: with the images measured here.
      edits: directions, "NAME_OR_FILE[:STRENGTH]": FID of the inversions after these edits, one
        after the other; goes with FID.
      edit_statistics: of real images that have what the edits give, as `fid_statistics`; None: the
        edited inversions are compared with all images.
      other_generator: take directions that were made for another generator.
      parser: finds the faces of the boundary error, see `boundary.load_parser`; None: not measured.
      run: see `RunOptions`; of a folder's images 0.01 may be unreadable or their inversions not
        finite, of a data set's none.

    Returns:
      The content of metrics.json. The mean latent's image is that of the first encoder's
      generator. Where other processes have not ended their parts, the report of `run_job`, with
      "status" "part done".

    Raises:
      InputError: unknown weights or data, a part missing, not one name an encoder, one of
        `identity` and `face_detector` without the other, too many skipped images, or an `out`
        that cannot be used.
      MachineError: the disk is full or fails.
    """
    labels, out = encoder_names(weights, names), Path(out)
    mesh = local_mesh()
    models = [load(path, dtype=dtype, mesh=mesh) for path in weights]
    for model in models:
        model.require_inversion()
    samples = Samples(data, split, num_samples=num_samples)
    place = models[0].replicated_sharding
    features = load_feature_sets(
        fid_mode,
        lpips if fid_mode == LPIPS and fid_weights is None else fid_weights,
        statistics=fid_statistics,
        edit_statistics=edit_statistics,
        edits=edits,
        place=place,
    )
    edited = None
    if edits:
        edited = EditedInversions(models, edits, other_generator=other_generator)
        for line in edited.outside:
            print_notice(line)
    job = EvaluationJob(
        models,
        samples,
        load_distance(lpips, place=place),
        load_identity(identity, face_detector, mesh=mesh),
        features=features,
        edits=edited,
        parse=None if parser is None else load_parser(parser),
        num_iterations=num_iterations,
        batch_size=batch_size,
        options={
            "lpips": digest(lpips),
            **identity_options(identity, face_detector),
            "fid": features and features.options,
            "parser": parser,
        },
        report_options={"names": labels, "data": str(data)},
    )
    if samples.is_data_set:
        job.max_skipped = 0.0
    report = run_job(job, samples, out, **run)
    return read_json(out / "metrics.json") if report["status"] == "done" else report
