"""The command line: `interestyle train | invert | align | evaluate | data | masks`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from interestyle_jax import __version__
from interestyle_jax.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line on stderr, with status 2."""

    def error(self, message: str):
        self.exit(2, f"interestyle: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    0 on success, 2 on wrong usage or input and 1 on a non-finite loss (one line on stderr each),
    130 on Ctrl-C. A training that SIGTERM stopped saved its state: 0, for the scheduler to restart.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    try:
        args, rest = parser.parse_known_args(argv)
        if rest and args.command != "train":
            parser.error(f"unknown argument {rest[0]}")
        args.overrides, args.argv = rest, ["interestyle", *argv]
        return args.run(args) or 0
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except FloatingPointError as error:
        return _fail(str(error), status=1)
    except KeyboardInterrupt:
        print("interestyle: stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; imports nothing heavy."""
    parser = _Parser(
        prog="interestyle",
        description="IntereStyle GAN inversion in JAX: encode a region, ignore the rest.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"interestyle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_invert(commands)
    _add_align(commands)
    _add_evaluate(commands)
    _add_data(commands)
    _add_masks(commands)
    return parser


def _add_train(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train an encoder or a generator",
        description="Trains what a config file says; --config.field=value changes a field.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="e.g. configs/demo.py:smoke"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    several = parser.add_argument_group(
        "several processes",
        "Each runs this command on its own devices. Under SLURM, Open MPI and on TPU pods they "
        "find each other; elsewhere say how, here or by JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num-processes", type=_count, metavar="N")
    several.add_argument("--process-id", type=int, metavar="I", help="from 0")
    several.add_argument(
        "--distributed", choices=("auto", "off"), default="auto", help="off: do not look for others"
    )
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from absl import flags

    from interestyle_jax.config_file import read_config

    # Before JAX is imported: a wrong field is told at once.
    config = read_config(args.config, args.overrides)
    from interestyle_jax.training.processes import Address, connected, find_address, is_first
    from interestyle_jax.training.train_loop import train

    # Grain's worker processes read absl flags, which only absl.app would parse.
    flags.FLAGS.mark_as_parsed()
    given = Address(args.coordinator, args.num_processes, args.process_id)
    with connected(find_address(given, detect=args.distributed == "auto")):
        report = train(config, args.workdir, command=args.argv)
        first = is_first()
    if not first:
        return 0
    print(f"{args.workdir}: {report['status']} at step {report['last_step']}")
    return 0


def _add_invert(commands) -> None:
    parser = commands.add_parser(
        "invert",
        help="invert pictures into latents",
        description="Inverts a picture or a folder of pictures; no mask is needed.",
        allow_abbrev=False,
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_model_options(parser)
    parser.add_argument("--batch-size", type=_count, default=8, help="pictures at once (default 8)")
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--align", action="store_true", help="invert each photograph's face, aligned as in FFHQ"
    )
    _add_landmark_options(photos)
    photos.add_argument(
        "--paste-back",
        action="store_true",
        help="also write NAME_pasted.png, the photograph with the inversion in it",
    )
    photos.add_argument(
        "--feather",
        type=float,
        metavar="SHARE",
        help="width of the soft edge as a share of the square's side (default 0.1)",
    )
    photos.add_argument(
        "--paste-shape", choices=("square", "ellipse"), help="what is pasted (default square)"
    )
    photos.add_argument(
        "--paste-mask",
        metavar="PROVIDER",
        help="paste the interest region only: selfie, segformer, detr or graphonomy",
    )
    photos.add_argument(
        "--paste-mask-weights", metavar="NAME_OR_DIR", help="the provider's weights or model"
    )
    parser.set_defaults(run=_invert)


def _invert(args: argparse.Namespace) -> int:
    from interestyle_jax.aligned_faces import Alignment
    from interestyle_jax.invert_files import invert_files

    given = {
        "landmarks": args.landmarks,
        "dlib_file": args.dlib_file,
        "paste_back": args.paste_back or None,
        "feather": args.feather,
        "shape": args.paste_shape,
        "mask": args.paste_mask,
        "mask_weights": args.paste_mask_weights,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and not args.align:
        raise InputError("--paste-back and options of landmarks and pasting need --align")
    if not args.paste_back and given.keys() & {"feather", "shape", "mask", "mask_weights"}:
        raise InputError("--feather, --paste-shape and --paste-mask need --paste-back")
    if args.paste_mask_weights and not args.paste_mask:
        raise InputError("--paste-mask-weights needs --paste-mask")
    report = invert_files(
        args.weights,
        args.input,
        args.out,
        num_steps=args.steps,
        dtype=args.dtype,
        batch_size=args.batch_size,
        alignment=Alignment(**given) if args.align else None,
        command=args.argv,
    )
    print(f"{args.out}: inverted {report['num_images']} pictures in {report['seconds']:.1f} s")
    return 0


def _add_align(commands) -> None:
    parser = commands.add_parser(
        "align",
        help="align the faces of photographs as in FFHQ",
        description="Cuts the face of a photograph, or of every photograph of a folder, upright.",
        allow_abbrev=False,
    )
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--size", type=_count, default=1024, help="side in pixels (default 1024)")
    _add_landmark_options(parser)
    parser.add_argument("--workers", type=_count, help="threads (default one a core, at most 8)")
    parser.set_defaults(run=_align)


def _align(args: argparse.Namespace) -> int:
    from interestyle_jax.align_files import align_files

    report = align_files(
        args.input,
        args.out,
        size=args.size,
        landmarks=args.landmarks or "litert",
        dlib_file=args.dlib_file,
        workers=args.workers,
        command=args.argv,
    )
    done, skipped, seconds = (report[key] for key in ("num_images", "num_skipped", "seconds"))
    print(f"{args.out}: aligned {done} pictures in {seconds:.1f} s, skipped {skipped}")
    return 0


def _add_evaluate(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure encoders on a data set",
        description="Measures distortion, leakage and latent variance of one or more encoders.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--weights", required=True, action="append", metavar="NAME_OR_DIR", help="repeatable"
    )
    parser.add_argument(
        "--name", action="append", help="an encoder's name in the results, one for each --weights"
    )
    parser.add_argument("--data", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", default="test", help="split of the data set (default test)")
    parser.add_argument("--num-samples", type=_count, help="first pictures only (default all)")
    _add_model_options(parser)
    parser.add_argument("--batch-size", type=_count, default=16, help="pictures at once")
    parser.add_argument("--lpips", default="lpips_alex", metavar="NAME_OR_DIR")
    parser.add_argument(
        "--identity", metavar="DIR", help="embedder of the ID similarity (CurricularFace)"
    )
    parser.add_argument(
        "--face-detector", metavar="DIR", help="MTCNN weights, needed with --identity"
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from interestyle_jax.evaluation.evaluate import evaluate

    evaluate(
        args.weights,
        args.data,
        args.out,
        batch_size=args.batch_size,
        num_samples=args.num_samples,
        split=args.split,
        names=args.name,
        num_steps=args.steps,
        lpips=args.lpips,
        dtype=args.dtype,
        identity=args.identity,
        face_detector=args.face_detector,
    )
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"written to {shlex.quote(str(args.out))}: metrics.json, table.md, figures/")
    return 0


def _add_data(commands) -> None:
    from interestyle_jax import data_files

    parser = commands.add_parser(
        "data",
        help="prepare a data set",
        description="Makes the data sets that train and evaluate read (docs/data.md).",
        allow_abbrev=False,
    )
    data_files.add_arguments(parser)
    parser.set_defaults(run=data_files.run)


def _add_landmark_options(parser) -> None:
    """What `align` and `invert --align` say of landmarks."""
    parser.add_argument(
        "--landmarks", choices=("litert", "dlib"), help="what finds eyes and mouth (default litert)"
    )
    parser.add_argument(
        "--dlib-file", metavar="FILE", help="dlib's shape_predictor_68_face_landmarks.dat"
    )


def _add_masks(commands) -> None:
    from interestyle_jax.interest.providers import PROVIDERS

    parser = commands.add_parser(
        "masks",
        help="make interest masks of pictures",
        description="Makes interest masks by a provider; the same command goes on after a stop.",
        allow_abbrev=False,
    )
    parser.add_argument("--provider", required=True, choices=PROVIDERS)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--weights", metavar="DIR", help="graphonomy: its converted checkpoint, a weight directory"
    )
    parser.add_argument("--model", metavar="NAME_OR_DIR", help="segformer, detr: the network")
    parser.add_argument("--revision", help="segformer, detr: the network's version on the hub")
    parser.add_argument("--masks", metavar="DIR", help="folder: interest masks")
    parser.add_argument("--face-masks", metavar="DIR", help="folder: face masks")
    parser.add_argument("--labels", metavar="DIR", help="folder, celebamask: label maps, or parts")
    parser.add_argument("--order", help="celebamask: order of the labels in label maps")
    parser.add_argument(
        "--classes", type=_words, metavar="A,B", help="labels of the interest region"
    )
    parser.add_argument("--face-classes", type=_words, metavar="A,B", help="labels of the face")
    parser.add_argument("--threshold", type=float, help="selfie, detr: least probability")
    parser.add_argument(
        "--scales", type=_numbers, metavar="1,0.5", help="graphonomy: default the official six"
    )
    parser.add_argument(
        "--tiny", type=float, default=0.01, metavar="SHARE",
        help="interest regions below it are reported (default 0.01 of the picture)",
    )  # fmt: skip
    parser.add_argument(
        "--max-skipped", type=float, default=0.01, metavar="SHARE",
        help="of pictures that may go without masks (default 0.01)",
    )  # fmt: skip
    parser.add_argument("--sheets", type=int, default=10, help="overlay sheets (default 10)")
    parser.add_argument(
        "--workers", type=int, help="processes (default: as the provider needs; 0: none)"
    )
    parser.set_defaults(run=_masks)


def _masks(args: argparse.Namespace) -> int:
    from interestyle_jax.mask_files import write_masks

    names = (
        "weights", "model", "revision", "masks", "face_masks", "labels", "order", "classes",
        "face_classes", "threshold", "scales",
    )  # fmt: skip
    report = write_masks(
        args.images,
        args.out,
        provider=args.provider,
        options={name: getattr(args, name) for name in names},
        tiny=args.tiny,
        max_skipped=args.max_skipped,
        num_sheets=args.sheets,
        workers=args.workers,
        command=args.argv,
    )
    interest = report["interest"]
    print(
        f"{args.out}: masks of {report['num_pictures']} pictures, {len(report['skipped'])} "
        f"skipped; interest region empty in {100 * interest['empty']:.1f} %, below "
        f"{100 * args.tiny:g} % of the picture in {100 * interest['tiny']:.1f} %"
    )
    return 0


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """What `invert` and `evaluate` say of how models run."""
    parser.add_argument(
        "--steps",
        type=_count,
        help="iterations N (default 5; encoders that see the picture alone run once)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks' maps"
    )


def _words(text: str) -> tuple[str, ...]:
    """Words parted by commas, for argparse."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers above 0 parted by commas, for argparse."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 100 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers above 0 such as 1,0.5")
    return numbers


def _count(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 1")
    return number


def _fail(message: str, status: int = 2) -> int:
    print(f"interestyle: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
