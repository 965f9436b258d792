"""Measure translations: python -m nla_cyclegan evaluate.

Three questions. Do the translations look like the other domain? Sliced Wasserstein distance, KID and FID to held-out images
of it, beside those of the untouched inputs. Is the scene still there? SSIM of each translation and its input, the distance
that the way back misses by and, where the dataset knows the true result of each input, PSNR and SSIM against that. Are
images that need no change left alone? The identity distance.
"""

import argparse

from data_shards.command_line import integer
from data_shards.images.fit import FITS
from data_shards.local_paths import LocalFile, LocalPath
from nla_cyclegan.weights.names import BOTH, CHOICES, FILE_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--translations", action=LocalPath, metavar="DIR", help="measure what `translate` wrote")
    measured.add_argument(
        "--weights", help="translate first, with the generators of a run (its newest checkpoint) or of a checkpoint folder, a path or a "
        f"URI; adds cycle and identity L1. {CHOICES}"
    )  # fmt: skip
    parser.add_argument(
        "--inputs",
        required=True,
        action=LocalPath,
        metavar="DIR",
        help="the images to translate, or those that --translations were made from, by the same names",
    )
    parser.add_argument(
        "--real", required=True, action=LocalPath, metavar="DIR", help="held-out real images of the other domain"
    )
    parser.add_argument(
        "--truth",
        action=LocalPath,
        metavar="DIR",
        help="the true result of each input, by the same names, where it is known",
    )
    parser.add_argument(
        "--direction",
        choices=[*FILE_NAMES, BOTH],
        default="B2A",
        help="B2A: the inputs are photos (default); A2B: Monets; both: B2A, then A2B with the real images as inputs",
    )
    parser.add_argument(
        "--size", type=integer,
        help="measure at this size in pixels (default: that of the run's own validation; without a run, the shorter side that "
        "nearly all images have)",
    )  # fmt: skip
    parser.add_argument(
        "--fit", choices=FITS,
        help="how images are made to fit that size: stretch to a square, keep their proportions (the size is then that of the shorter "
        "side), or crop to the square in the middle (default: data.fit of the run; without a run, stretch)",
    )  # fmt: skip
    parser.add_argument(
        "--inception", default="auto", metavar="FILE",
        help="weights of torch-fidelity's Inception, for KID and FID; auto (default): those in torch's hub cache; "
        "without any, or with none, KID and FID are left out",
    )  # fmt: skip
    parser.add_argument(
        "--train-images", action=LocalPath, metavar="DIR",
        help="training images of the target domain: adds MiFID, an FID that is worse for translations that copy them",
    )  # fmt: skip
    parser.add_argument(
        "--statistics", action=LocalFile, metavar="FILE",
        help="keep the statistics of the real and the training images in this .npz file, and reuse them the next time if the "
        "images, the size, the seed and the network are the same",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=integer, default=0, help="seed of the sampled patches and projections (default: 0)"
    )
    parser.add_argument(
        "--device", default="auto", help="device of the networks: auto (default), cpu, cuda, cuda:1, ..."
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with status 1 if an image, or a folder that cannot be opened, was left out",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only check the folders: that there are images, and that those that belong together have the same names",
    )
    parser.add_argument("--json", action=LocalFile, metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON. Returns: 1 with --strict if an image was left out, else 0."""
    from nla_cyclegan.weights.references import check_there

    if args.weights:
        check_there(args.weights)
    # Imported here because torch takes seconds to import, and --help does not need it.
    from nla_cyclegan.commands.evaluation.files import evaluate_files

    return evaluate_files(args)
